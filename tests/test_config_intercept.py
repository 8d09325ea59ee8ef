from __future__ import annotations

import pytest

from imds_proxy.config import Config, ConfigErrors, parse
from imds_proxy.config_intercept import Intercept, InterfaceName, intercept_conflicts
from imds_proxy.config_values import Address


def read(text: str) -> Intercept:
    return parse(text, "c.yaml").intercept


def refused(text: str) -> str:
    with pytest.raises(ConfigErrors) as errors:
        parse(text, "c.yaml")
    (error,) = errors.value.errors
    return str(error)


def test_the_section_is_read() -> None:
    section = read(
        "intercept: {method: nftables, on_failure: closed, address: 169.254.1.1:80,"
        " forwarded: [cni*, docker0], mark: 7, exempt_uid: 64000, owner_table: false}"
    )
    assert section == Intercept(
        "nftables", "closed", (Address("169.254.1.1", 80),), ("cni*", "docker0"), 7, 64000, False
    )


def test_the_default_contradicts_nothing() -> None:
    config = Config()
    assert list(intercept_conflicts(config.intercept, config.listen, config.upstream.address)) == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("intercept: {on_failure: ajar}", "open | closed"),
        ("intercept: {address: [169.254.1.1:80, 169.254.1.2:80]}", "two addresses of one family"),
        ("intercept: {address: 169.254.1.1:0}", "cannot be connected to"),
        ("intercept: {address: 127.0.0.1:8100}", "stands in listen too"),
        ("intercept: {address: 100.100.100.200:80}", "a loop"),
        ("intercept: {address: 127.0.0.1:81, forwarded: [cni0]}", "cannot take forwarded calls"),
        ("intercept: {method: ebpf, forwarded: [cni0]}", "eBPF redirects local processes only"),
        ("intercept: {forwarded: [lo]}", "no interface to redirect from"),
        ("intercept: {forwarded: ['a\"b']}", "no interface to redirect from"),
        ("intercept: {mark: 0}", "a whole number from 1"),
    ],
)
def test_what_is_wrong_is_told_with_what_is_allowed(text: str, wrong: str) -> None:
    assert wrong in refused(text)


@pytest.mark.parametrize("name", ["cni*", "docker0", "*", "veth-a.b@c", "a" * 15])
def test_names_of_interfaces_are_read(name: str) -> None:
    kind = InterfaceName()
    assert kind.show(kind.read(name, "str")) == name


@pytest.mark.parametrize("name", ["a" * 16, "a*b", "**", "eth0;", 'x" accept', "..", "a b"])
def test_what_no_interface_is_called_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no interface"):
        InterfaceName().read(name, "str")
