"""The report as one page without anything outside it. Text of callers is escaped.

What is shown is what `report` says; no script, no style from elsewhere.
"""

from __future__ import annotations

from html import escape
from typing import TextIO

from imds_proxy.ledger.merging import Merge
from imds_proxy.ledger.reading import name_of
from imds_proxy.ledger.report import advice_for, iso

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>imds-proxy report</title>
<style>:root { color-scheme: light dark; font-family: sans-serif } td, th { text-align: left; padding: .3em }
</style></head><body>
"""


def write_page(merge: Merge, out: TextIO) -> None:
    """The verdict and the callers that need a change."""
    out.write(_HEAD + f"<h1>{merge.verdict.value}</h1>\n<table>\n<thead><tr>")
    for title in ("Caller", "User", "Hosts", "Last seen", "Calls", "What to change"):
        out.write(f'<th scope="col">{title}</th>')
    out.write("</tr></thead>\n<tbody>\n")
    for caller in merge.callers(needing_change=True):
        calls = caller.sessions["legacy"] + caller.sessions["fallback"]
        cells = (
            name_of(caller.exe, caller.script, caller.unit, caller.container, caller.pod),
            caller.user or "",
            "" if caller.hosts is None else str(caller.hosts),
            iso(caller.last_seen) or "",
            str(calls),
            advice_for(caller) or "",
        )
        out.write("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>\n")
    out.write("</tbody>\n</table>\n</body></html>\n")
