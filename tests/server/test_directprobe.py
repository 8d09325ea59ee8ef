"""The admin command `probe`: what the service itself answers, though all others are redirected."""

from __future__ import annotations

from imds_proxy.emulator.service import Emulator
from imds_proxy.emulator.settings import Settings
from imds_proxy.server.admin import ask
from proxy import running_proxy


def test_it_tells_how_the_service_takes_plain_gets_and_never_a_body() -> None:
    with (
        Emulator(settings=Settings(http_tokens="required")) as service,
        running_proxy(service.address) as proxy,
    ):
        answer = ask(proxy.config.parent / "admin.sock", "probe")
        assert answer == {"ok": True, "v1": 403, "v2": 200, "failed": 0}
        assert service.counters().v1_gets == 1
