"""The report as a page."""

from __future__ import annotations

import io
from dataclasses import replace

from histories import CURL
from imds_proxy.ledger.logs import LoggedCaller
from imds_proxy.ledger.merging import Merge
from imds_proxy.ledger.page import Live, write_page


def test_the_page_names_callers_and_their_text_is_inert() -> None:
    hostile = replace(CURL, exe="<script>alert(1)</script>", user='"><img src=x>')
    with Merge() as merge:
        merge.add_log([LoggedCaller(hostile, {"legacy": 3})], [])
        out = io.StringIO()
        write_page(merge, out)
    page = out.getvalue()
    assert "NOT READY" in page
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "<img" not in page
    assert "default-src 'none'" in page


def page_of(live: Live | None = None, refresh: int | None = None, exe: str = "/usr/bin/curl") -> str:
    with Merge() as merge:
        merge.add_log([LoggedCaller(replace(CURL, exe=exe), {"legacy": 3, "fallback": 1})], ["web-1"])
        out = io.StringIO()
        write_page(merge, out, live, refresh)
    return out.getvalue()


def test_the_page_needs_nothing_from_outside_and_no_script() -> None:
    page = page_of()
    for word in ("<script", "<link", "<img", "src=", "url(", "@import", "onload", "style="):
        assert word not in page.replace("style-src", "").replace("default-src", "")


def test_direction_and_control_characters_of_a_name_are_shown_as_such() -> None:
    page = page_of(exe="/tmp/\u202egpj.exe\x1b[31m")
    assert "\u202e" not in page
    assert "\\u202e" in page
    assert "\x1b" not in page


def test_a_living_daemon_is_shown_as_it_is_now() -> None:
    page = page_of(Live("web-1", {"upstream budget": "50/s of 50/s"}, {"relayed": 7}), refresh=15)
    assert "imds-proxy on web-1" in page
    assert "50/s of 50/s" in page
    assert "refused: relayed" in page
    assert 'http-equiv="refresh" content="15"' in page
    assert "refresh" not in page_of()


def test_every_cell_of_a_card_says_what_it_is() -> None:
    page = page_of()
    assert page.count("<td data-label=") == 7
    assert 'data-label="What to change"' in page
