"""The report as a page."""

from __future__ import annotations

import io
from dataclasses import replace

from histories import CURL
from imds_proxy.ledger.logs import LoggedCaller
from imds_proxy.ledger.merging import Merge
from imds_proxy.ledger.page import write_page


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
