"""The policy section: rules as written, and what is said of wrong ones."""

from __future__ import annotations

import pytest

from imds_proxy.config import ConfigErrors, parse
from imds_proxy.config_rules import CallerKeys, RateKind
from imds_proxy.policy.matching import Selector
from imds_proxy.policy.rules import Rate
from imds_proxy.server.build import policy_of


def refused(text: str) -> str:
    with pytest.raises(ConfigErrors) as caught:
        parse(text, "f")
    return "\n".join(str(error) for error in caught.value.errors)


DESIGN_EXAMPLE = """
policy:
  enforcement: enforce
  rules:
    - name: billing app may read its credentials the old way
      caller: {exe: /usr/bin/java, user: billing, unit: billing.service}
      paths: [meta-data/ram/security-credentials/billing-role]
      legacy: upgrade
      rate: 5/s
    - name: web tier never reads credentials
      caller: {pod: {namespace: web, labels: [app=front]}, uid: [1000-1999, 5]}
      paths: [meta-data/ram/**]
      allow: false
      enforcement: audit
"""


def test_rules_become_those_of_the_policy_room() -> None:
    policy = policy_of(parse(DESIGN_EXAMPLE, "f"))
    first, second = policy.rules
    assert first.caller.selectors == (
        Selector("exe", ("/usr/bin/java",)),
        Selector("user", ("billing",)),
        Selector("unit", ("billing.service",)),
    )
    assert (first.allow, first.legacy, first.rate, first.enforcing) == (True, "upgrade", Rate(5, 5), None)
    assert second.caller.selectors == (
        Selector("uid", ("1000-1999", "5")),
        Selector("pod_namespace", ("web",)),
        Selector("pod_labels", ("app=front",)),
    )
    assert (second.allow, second.enforcing) == (False, False)
    assert policy.enforcing


def test_a_container_is_named_by_id_name_and_image() -> None:
    policy = policy_of(
        parse("policy: {rules: [{name: a, caller: {container: {id: x, name: y, image: z}}}]}", "f")
    )
    facts = [selector.fact for selector in policy.rules[0].caller.selectors]
    assert facts == ["container", "container_name", "container_image"]
    assert CallerKeys().match().selectors == ()


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("{caller: {user: x}}", "policy.rules[1] has no name"),
        ("{name: 'a<b'}", "is no name of a rule"),
        ("{name: a, caller: {exe: java}}", "is not in normal form"),
        ("{name: a, caller: {exe: /usr/../x}}", "is not in normal form"),
        ("{name: a, caller: {uid: 5-3}}", "is not a uid or a range of them"),
        ("{name: a, caller: {uid: root}}", "is not a uid or a range of them"),
        ("{name: a, caller: {sha256: abc, exe: /x}}", "is not 64 hexadecimal digits"),
        ("{name: a, caller: {sha256: " + "0" * 64 + "}}", "sha256 is of an executable; give its exe too"),
        ("{name: a, allow: yes}", "allowed is true or false"),
        ("{name: a, legacy: allow}", "allowed is upgrade | refuse"),
        ("{name: a, rate: 5}", "is not a rate above zero"),
        ("{name: a, rate: 0/s}", "is not a rate above zero"),
        ("{name: a, paths: [latest/user-data]}", "begins with a version"),
        ("{name: a, caller: {users: x}}", "did you mean 'user'?"),
        ("{name: a, caller: {pod: {labels: x}}}", "is not a label like app=web"),
        ("{name: a, caller: [x]}", "'policy.rules[1].caller' is a mapping"),
        ("just text", "'policy.rules[1]' is a mapping"),
    ],
)
def test_a_wrong_rule_is_refused_with_what_is_allowed(rule: str, said: str) -> None:
    error = refused(f"policy:\n  rules:\n    - {rule}\n")
    assert said in error
    assert error.startswith("f:3: ")


def test_rules_are_a_list() -> None:
    assert "is a list of mappings" in refused("policy: {rules: {name: a}}")


def test_a_name_is_taken_once() -> None:
    error = refused("policy:\n  rules:\n    - {name: a}\n    - {name: a, caller: {user: x}}\n")
    assert error == "f:4: policy.rules[2]: the name 'a' is taken by an earlier rule"


@pytest.mark.parametrize("caller", ["exe: /x", "script: /x.py", "exe: /x, parent: /y"])
@pytest.mark.parametrize("paths", ["user-data", "meta-data/ram/security-credentials/r", "meta-data/**"])
def test_under_enforce_no_rule_gives_a_sensitive_item_to_a_program_alone(caller: str, paths: str) -> None:
    rule = f"{{name: a, caller: {{{caller}}}, paths: '{paths}'"
    assert "which any process may imitate" in refused(
        f"policy:\n  enforcement: enforce\n  rules:\n    - {rule}}}\n"
    )
    assert "which any process may imitate" in refused(f"policy:\n  rules: [{rule}, enforcement: enforce}}]\n")
    parse(f"policy:\n  rules: [{rule}}}]\n", "f")
    parse(f"policy:\n  enforcement: enforce\n  rules: [{rule}, allow: false}}]\n", "f")
    named = rule.replace("caller: {", "caller: {user: u, ")
    parse(f"policy:\n  enforcement: enforce\n  rules: [{named}}}]\n", "f")


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("20/s", Rate(20, 20)),
        ("20/s burst 200", Rate(20, 200)),
        ("30/m", Rate(0.5, 1)),
        ("36/h burst 5", Rate(0.01, 5)),
    ],
)
def test_rates_are_read_and_shown(text: str, rate: Rate) -> None:
    assert RateKind().read(text, "str") == rate
    assert RateKind().read(RateKind().show(rate), "str") == rate


@pytest.mark.parametrize("text", ["20", "20/d", "20/s burst 0", "-1/s", "1.5/s", "20 /s", "٣/s"])
def test_a_wrong_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a rate above zero"):
        RateKind().read(text, "str")
