from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from imds_proxy.intercept.preflight import check_mark, check_route, cloud_init_is_busy
from imds_proxy.intercept.redirect import InterceptError
from netns import ip
from plans import SERVICES


@pytest.mark.usefixtures("network")
def test_a_machine_without_a_route_to_the_service_is_told_so() -> None:
    with pytest.raises(
        InterceptError, match=r"no route to 100\.100\.100\.200: Network is unreachable"
    ) as error:
        check_route(SERVICES)
    assert error.value.slug == "no-route"


@pytest.mark.usefixtures("network")
def test_a_route_by_one_family_is_enough() -> None:
    ip("link add name there type bridge")
    ip("link set there up")
    ip("addr add fd99::1/64 dev there nodad")
    ip("route add fd00:100::/64 via fd99::2")
    check_route(SERVICES)


@pytest.mark.usefixtures("network")
def test_an_unreachable_route_is_none() -> None:
    ip("route add unreachable 100.100.100.200")
    with pytest.raises(InterceptError, match="no route"):
        check_route(SERVICES)


def test_root_may_set_the_mark() -> None:
    assert check_mark(200, 0) == 200


@pytest.mark.parametrize(("exempt", "said"), [(65534, "None"), (64000, "loop"), (0, "loop")])
def test_who_may_set_no_mark_must_be_the_exempt_user(exempt: int, said: str) -> None:
    code = (
        "from imds_proxy.intercept.preflight import check_mark\n"
        "from imds_proxy.intercept.redirect import InterceptError\n"
        "import os; os.setuid(65534)\n"
        f"try: print(check_mark(200, {exempt}))\n"
        "except InterceptError as error: print(error.slug, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    )
    assert done.stdout.startswith(said), done.stderr
    if said == "loop":
        assert "CAP_NET_ADMIN" in done.stdout


def test_cloud_init_is_busy_until_its_result_is_there(tmp_path: Path) -> None:
    assert not cloud_init_is_busy(tmp_path / "absent")
    (tmp_path / "enabled").touch()
    assert cloud_init_is_busy(tmp_path)
    (tmp_path / "result.json").touch()
    assert not cloud_init_is_busy(tmp_path)
