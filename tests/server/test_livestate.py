"""How the daemon is now, in words for people."""

from __future__ import annotations

from crewed import wait_for_workers
from imds_proxy.emulator.service import Emulator
from imds_proxy.server.admin import ask
from proxy import running_proxy


def test_the_state_tells_budget_expiry_and_refusals_and_no_secret() -> None:
    with Emulator() as service, running_proxy(service.address) as proxy:
        assert proxy.get("/latest/meta-data/ram/security-credentials/demo-role").status == 200
        assert proxy.request("GET", "/latest/meta-data/mac", {"Via": "x"}).status == 403
        state = ask(proxy.config.parent / "admin.sock", "state")
    assert state["refusals"] == {"relayed": 1}
    assert state["facts"]["mode"] == "upgrade"
    assert state["facts"]["service"] == "answers"
    assert state["facts"]["redirect"] == "not asked for"
    assert state["facts"]["credentials expire"].endswith("UTC")
    assert state["ledger"] == str(proxy.state / "ledger.db")
    assert "demo-role" not in str(state)


def test_the_state_tells_how_many_workers_serve() -> None:
    with Emulator() as service, running_proxy(service.address, {"workers": 2}) as proxy:
        wait_for_workers(proxy)
        assert ask(proxy.config.parent / "admin.sock", "state")["facts"]["workers"] == "2 of 2"
