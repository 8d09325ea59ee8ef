"""A ledger's history, as the verdict needs it."""

from __future__ import annotations

from pathlib import Path

from histories import CURL, START, alike, at, batch, opened
from imds_proxy.ledger.coverage import Gap
from imds_proxy.ledger.entries import Described, Installed, Lost
from imds_proxy.ledger.reading import Client, client_of, history_of, identity_of, name_of
from imds_proxy.ledger.schema import open_to_read
from imds_proxy.ledger.verdict import CallerHistory, Program


def test_what_the_daemon_wrote_is_read(tmp_path: Path) -> None:
    store = opened(tmp_path / "ledger.db")
    store.write(
        [
            batch(0, (alike(), 1), (alike(session="fallback", cause="left"), 1)),
            batch(9, (alike(session="bypass"), 1)),
            Described(CURL.key, {"name": "curl", "version": "8.1", "where": None}, (), "Do it."),
            Installed("cloud-init", "22.1", "/usr/bin/cloud-init", START, "upgrade it"),
            Installed("Logtail", None, None, START),
            Lost(START, START + 1, "the disk stalled", 7),
        ]
    )
    store.close()
    reading = open_to_read(tmp_path / "ledger.db")
    history, (number, host) = history_of(reading), identity_of(reading)
    reading.close()
    assert (len(number), host) == (32, "web-1")
    (span,) = history.spans
    assert (span.begin, span.end, span.begin_boot) == (START, at(9).wall, at(0).boot)
    assert history.losses == [Gap(START, START + 1, "counts-lost", "the disk stalled (7)")]
    assert history.callers == [
        CallerHistory(
            "/usr/bin/curl (cron.service)",
            {"legacy": START, "fallback": START, "bypass": START + 9},
            "curl",
            "8.1",
            "Do it.",
            "left",
        )
    ]
    assert history.programs == [
        Program("Logtail", None, None),
        Program("cloud-init", "22.1", "/usr/bin/cloud-init", "upgrade it"),
    ]


def test_a_caller_is_called_by_its_program_and_place() -> None:
    assert (
        name_of("/usr/bin/python3", "/srv/app.py", "app.service", None, None) == "/srv/app.py (app.service)"
    )
    assert name_of("/app", None, None, "shop:3", "shop/web") == "/app (shop/web)"
    assert name_of(None, None, None, None, None) == "(not found)"


def test_a_client_that_cannot_be_read_is_not_known() -> None:
    for text in (None, "", "null", "[]", "{", '"x"', "[" * 100_000):
        assert client_of(text) == Client(None, None, None)
    assert client_of('{"name": "curl", "version": 8}') == Client("curl", None, None)
