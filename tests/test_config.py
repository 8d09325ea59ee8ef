"""The configuration as a whole: what a file says, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.config import (
    Address,
    Config,
    ConfigErrors,
    describe,
    load,
    load_or_default,
    override,
    parse,
)
from imds_proxy.policy.sensitive import SensitivePaths

EXAMPLE = Path(__file__).parent.parent / "packaging" / "config.example.yaml"


@pytest.fixture(autouse=True)
def _no_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)


def refused(text: str) -> list[str]:
    with pytest.raises(ConfigErrors) as caught:
        parse(text, "f")
    return [str(error) for error in caught.value.errors]


def dotted_keys(tree: object, prefix: str = "") -> set[str]:
    if not isinstance(tree, dict):
        return {prefix}
    return {key for name, value in tree.items() for key in dotted_keys(value, f"{prefix}.{name}".lstrip("."))}


def test_the_example_file_loads_and_equals_the_defaults() -> None:
    assert load(EXAMPLE, check_owner=False) == Config()


def test_every_key_stands_in_the_example_file_and_is_documented() -> None:
    assert dotted_keys(yaml.safe_load(EXAMPLE.read_text())) == {doc.key for doc in describe()}
    assert all(doc.doc.endswith(".") and doc.allowed for doc in describe())


def test_every_default_as_documented_is_read_back_as_that_default() -> None:
    tree: dict[str, object] = {}
    for doc in describe():
        *sections, key = doc.key.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})  # type: ignore[assignment]  # nested dicts of object
        if doc.default.startswith("["):
            place[key] = [one for one in doc.default[1:-1].split(", ") if one]
        else:
            place[key] = int(doc.default) if doc.default.isdigit() else doc.default
    assert parse(yaml.safe_dump(tree), "f") == Config()


@pytest.mark.parametrize(
    "text", ["", "\n", "# nothing\n", "upstream:\n", "upstream: {}\nlog:\n", "\ufeffmode: upgrade"]
)
def test_what_is_left_out_has_its_default(text: str) -> None:
    assert parse(text, "f") == Config()


def test_values_become_seconds_bytes_addresses_and_words() -> None:
    config = parse(
        "listen: ['127.0.0.1:0', '[::1]:8100']\n"
        "upstream: {address: 127.0.0.1:9, token_ttl: 60s, deadline: 800ms, max_response: 2MiB}\n"
        "mode: enforce\nhosts: [Metadata.Internal, 'x:8100']\nlimits: {drain: 0s, head: 8KiB}\n"
        "policy: {enforcement: enforce, sensitive: [meta-data/*/x]}\nlog: {format: json}\n"
        "tokens: sealed\nstate: /srv/state\n",
        "f",
    )
    assert config.listen == (Address("127.0.0.1", 0), Address("::1", 8100))
    assert [str(address) for address in config.listen] == ["127.0.0.1:0", "[::1]:8100"]
    assert config.upstream.address == Address("127.0.0.1", 9)
    assert (config.upstream.token_ttl, config.upstream.deadline) == (60.0, 0.8)
    assert (config.upstream.max_response, config.limits.head) == (2 * 1024 * 1024, 8192)
    assert (config.mode, config.tokens, config.limits.drain) == ("enforce", "sealed", 0.0)
    assert config.hosts == ("metadata.internal", "x:8100")
    assert (config.policy.enforcement, config.policy.sensitive) == ("enforce", ("meta-data/*/x",))
    assert (config.log.format, config.state) == ("json", Path("/srv/state"))


def test_the_state_directory_of_systemd_is_the_default_and_a_key_beats_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/run/one:/run/two")
    assert Config().state == parse("", "f").state == Path("/run/one")
    assert parse("state: /srv", "f").state == Path("/srv")


def test_all_errors_are_reported_in_one_go_with_their_lines() -> None:
    errors = refused(
        "lissten: 1\n"
        "mode: on\n"
        "upstream:\n"
        "  deadline: 900\n"
        "  addres: 1\n"
        "limits: {head: 12}\n"
        "log: 5\n"
        "mode: enforce\n"
        "deadline: 4s\n"
    )
    assert [error.split(": ")[0] for error in errors] == [f"f:{n}" for n in (1, 2, 4, 5, 6, 7, 8, 9)]
    assert "unknown key 'lissten'; did you mean 'listen'?" in errors[0]
    assert "allowed is provider, listen, upstream" in errors[0]
    assert "'on' is a boolean in YAML" in errors[1]
    assert "a duration needs a unit: 900ms, 900s" in errors[2]
    assert "did you mean 'address'?" in errors[3]
    assert "a size needs a unit: 12B, 12KiB" in errors[4]
    assert "'log' is a mapping" in errors[5]
    assert "duplicate key 'mode', first on line 2" in errors[6]
    assert "did you mean 'upstream.deadline'?" in errors[7]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("listen: 127.0.0.1:8100", "'listen' is a list"),
        ("listen: []", "at least 1 is needed"),
        ("listen: ['127.0.0.1:1', '127.0.0.1:1']", "twice"),
        ("hosts: [A, a]", "twice"),
        ("mode: [upgrade]", "'mode' is one value"),
        ("mode: {a: b}", "'mode' is one value"),
        ("mode:", "'mode' has no value"),
        ("mode: ''", "'mode' has no value"),
        ("mode: upgarde", "did you mean 'upgrade'?"),
        ("tokens: no", "boolean"),
        ("- mode", "a configuration is a mapping"),
        ("upstream: [1]", "'upstream' is a mapping"),
        ("upstream: {connections: 0}", "1 to 1024"),
        ("upstream: {connections: '32'}", "not a whole number"),
        ("upstream: {connections: 3.5}", "not a whole number"),
        ("upstream: {deadline: 1s}", "out of range; allowed is 50ms to 999ms"),
        ("upstream: {token_ttl: 7h}", "out of range; allowed is 1s to 6h"),
        ("upstream: {address: '0.0.0.0:80'}", "cannot be connected to"),
        ("upstream: {address: '127.0.0.1:0'}", "cannot be connected to"),
        (
            "upstream: {deadline: 400ms}",
            "upstream.connect_timeout (500ms) is more than upstream.deadline (400ms)",
        ),
        ("limits: {connections: 10}", "limits.connections_per_caller (12288) is more"),
        ("limits: {head: 1KiB}", "does not fit into limits.head"),
        ("listen: ['100.100.100.200:80']", "a loop"),
        ("listen: ['0.0.0.0:80']\nupstream: {address: '127.0.0.1:80'}", "a loop"),
        ("listen: ['[::]:80']\nupstream: {address: '127.0.0.1:80'}", "a loop"),
        ("policy: {sensitive: [latest/user-data]}", "begins with a version; leave 'latest/' out"),
        ("policy: {sensitive: [2016-01-01/user-data]}", "begins with a version"),
        ("policy: {sensitive: [meta-data//x]}", "empty segment"),
        ("policy: {sensitive: [/user-data]}", "empty segment"),
        ("policy: {sensitive: [meta-data/**/x]}", "elsewhere than at its end"),
        ("policy: {sensitive: ['**']}", "elsewhere than at its end"),
        ("policy: {sensitive: [meta*/x]}", "as a part of a segment"),
        ("policy: {sensitive: [meta-data/../x]}", "dot segment"),
        ("policy: {sensitive: [meta%2ddata]}", "a character no path has"),
        ('state: "/srv/\\x1b[31m"', "control character"),
        ("state: state", "absolute path"),
        ("state: /srv/../etc", "absolute path"),
    ],
)
def test_a_wrong_value_is_refused_and_the_allowed_one_named(text: str, said: str) -> None:
    (error,) = refused(text)
    assert said in error
    assert error.isprintable()


def test_a_contradiction_is_not_reported_of_a_value_that_is_wrong_itself() -> None:
    assert len(refused("upstream: {deadline: 1ms}")) == 1


@given(st.text())
def test_any_text_is_a_configuration_or_is_refused_with_printable_errors(text: str) -> None:
    try:
        parse(text, "f")
    except ConfigErrors as refusal:
        assert all(str(error).isprintable() for error in refusal.errors)


_LEAF = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.dates())
_TREE = st.recursive(
    _LEAF,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from([d.key.rpartition(".")[2] for d in describe()] + ["upstream"]), inner
        ),
    ),
    max_leaves=12,
)


@given(_TREE)
def test_any_tree_is_a_configuration_or_is_refused(tree: object) -> None:
    try:
        parse(yaml.safe_dump(tree, allow_unicode=True), "f")
    except ConfigErrors as refusal:
        assert refusal.errors


@given(st.text(alphabet="ab*/.-~1%? "))
def test_every_accepted_pattern_is_one_that_the_policy_accepts(text: str) -> None:
    document = yaml.safe_dump({"policy": {"sensitive": [text]}})
    try:
        config = parse(document, "f")
    except ConfigErrors:
        return
    SensitivePaths(config.policy.sensitive)


def test_the_command_line_overrides_addresses_and_mode() -> None:
    config = override(Config(), listen=["127.0.0.1:0", "[::1]:0"], upstream="127.0.0.1:81", mode="enforce")
    assert config.listen == (Address("127.0.0.1", 0), Address("::1", 0))
    assert (config.upstream.address, config.mode) == (Address("127.0.0.1", 81), "enforce")
    assert override(Config()) == Config()


@pytest.mark.parametrize(
    ("listen", "upstream", "said"),
    [
        (["100.100.100.200:80"], None, "a loop"),
        (["127.0.0.1:1", "127.0.0.1:1"], None, "given twice"),
        (["here"], None, "has no port"),
        (None, "127.0.0.1:0", "cannot be connected to"),
        (None, "example.test:80", "has no IP address"),
    ],
)
def test_a_wrong_override_is_refused_with_a_sentence(
    listen: list[str] | None, upstream: str | None, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        override(Config(), listen=listen, upstream=upstream)


def test_without_a_file_that_is_named_the_default_one_counts_and_without_that_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    default, named = tmp_path / "default.yaml", tmp_path / "named.yaml"
    monkeypatch.setattr("imds_proxy.config.DEFAULT_PATH", default)
    assert load_or_default(None) == Config()
    default.write_text("mode: enforce\n")
    named.write_text("mode: passthrough\n")
    assert load_or_default(None).mode == "enforce"
    assert load_or_default(named).mode == "passthrough"
    with pytest.raises(ConfigErrors):  # what was named is not passed over
        load_or_default(tmp_path / "missing.yaml")
