"""Up and down beside the tables of other tools: it works, and leaves theirs and the links as they were."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud import SERVICE6, Lab, heard

_OTHERS = Path(__file__).parent.parent / "support" / "others.nft"
_COUNTED = re.compile(r"packets \d+ bytes \d+")


@pytest.fixture
def others(lab: Lab) -> Iterator[None]:
    """firewalld, Docker and kube-proxy."""
    lab.host.run("nft", "-f", str(_OTHERS))
    yield
    lab.host.nft("flush ruleset")


@pytest.mark.parametrize(
    ("method", "on_failure"), [("nftables", "open"), ("nftables", "closed"), ("ebpf", "open")]
)
def test_up_and_down_leave_the_machine_byte_for_byte_as_it_was(
    lab: Lab, on_failure: str, method: str
) -> None:
    before = lab.host.everything()
    with lab.daemon(settings={"intercept": {"on_failure": on_failure, "method": method}}) as daemon:
        assert lab.intercept(daemon, "up").returncode == 0
        assert lab.intercept(daemon, "up").returncode == 0
        assert lab.get().status == 200
        assert lab.host.everything() != before
        assert lab.intercept(daemon, "down").returncode == 0
        assert lab.host.everything() == before
        assert lab.get().status == 403


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize("on_failure", ["open", "closed"])
def test_beside_firewalld_docker_and_kube_proxy_too(lab: Lab, on_failure: str) -> None:
    # Their own counters count what passes: all else is compared.
    before = _COUNTED.sub("", lab.host.everything())
    with lab.daemon(settings={"intercept": {"on_failure": on_failure, "method": "nftables"}}) as daemon:
        assert lab.intercept(daemon, "up").returncode == 0
        assert lab.get().status == 200
        assert heard(lab.host, f"http://[{SERVICE6}]/latest/meta-data/instance-id").status == 200
        assert lab.intercept(daemon, "down").returncode == 0
        assert _COUNTED.sub("", lab.host.everything()) == before


@pytest.mark.usefixtures("others")
def test_ours_comes_before_theirs_which_translate_at_minus_100(lab: Lab) -> None:
    """Who translates a connection first is the last to do so."""
    elsewhere = "add rule ip nat OUTPUT ip daddr 100.100.100.200 tcp dport 80 dnat to 10.99.0.1:9"
    lab.host.nft(elsewhere)
    with lab.daemon("--intercept", settings={"intercept": {"method": "nftables"}}):
        # The proxy's own calls meet theirs: it says so, and `doctor` names that table.
        got = lab.get()
        assert got.status == 503
        assert "unreachable" in got.body or "deadline" in got.body
