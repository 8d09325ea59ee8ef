"""The dashboard: one page without anything outside it. Text of callers is inert.

What is shown is what `report` says, and how a living daemon is now; no script, no style from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import islice
from typing import TextIO

from imds_proxy.ledger.chart import KINDS, Bar, bars_of, svg_of
from imds_proxy.ledger.merging import Merge, MergedCaller
from imds_proxy.ledger.pagestyle import POLICY, STYLE
from imds_proxy.ledger.reading import name_of
from imds_proxy.ledger.report import advice_for, fix_lines, iso

_MOST_ROWS = 500
_QUESTION = "May the proxy be removed, and normal mode be switched off?"
_CALLERS = ("Caller", "User", "Hosts", "Last seen", "Calls", "Items", "Client", "What to change")


@dataclass(frozen=True, slots=True)
class Live:
    """A daemon as it is now: what it is called, `facts` by their names, refusals by slug."""

    host: str
    facts: Mapping[str, str] = field(default_factory=dict)
    refusals: Mapping[str, int] = field(default_factory=dict)


def write_page(merge: Merge, out: TextIO, live: Live | None = None, refresh: int | None = None) -> None:
    """Writes the page; with `refresh` a browser asks for it again after so many seconds."""
    verdict = merge.verdict.value
    again = f'<meta http-equiv="refresh" content="{refresh}">' if refresh else ""
    out.write(
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<meta name="referrer" content="no-referrer">{again}'
        f"<title>{verdict} - imds-proxy</title>\n<style>{STYLE}</style></head>\n<body>"
        '<a class="skip" href="#main">Skip to the callers</a>\n'
        f"<header><h1>imds-proxy{f' on {inert(live.host)}' if live else ''}</h1>"
        f'<p class="verdict {verdict.lower().replace(" ", "-")}" role="status">{verdict}</p>'
        f"<p>{_QUESTION}</p></header>\n<main>"
    )
    timeline = merge.timeline()
    out.write(_tiles(_sums(timeline), live))
    out.write(_chart(bars_of(timeline)))
    out.write(_fixes(merge))
    for piece in _callers(merge):
        out.write(piece)
    out.write(_refusals(timeline, live))
    out.write(_gaps(merge))
    begin = merge.since if merge.since is not None else merge.begin
    window = f"{iso(begin) or 'nothing'} to {iso(merge.end) or 'now'}"
    out.write(f"</main>\n<footer>Seen from {window}, {merge.hosts} host(s).</footer>\n</body></html>\n")


def inert(text: str) -> str:
    """Text that a caller chose, for a page: no markup, no control or direction characters but line ends."""
    return "<br>".join(_inert(line) for line in text.split("\n"))


def _inert(text: str) -> str:
    return escape("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text))


def _sums(timeline: Iterable[tuple[int, str, str, int]]) -> dict[str, int]:
    sums = dict.fromkeys((*KINDS, "refused", "would-refuse"), 0)
    for _, session, decision, count in timeline:
        if session in sums:
            sums[session] += count
        if decision in sums:
            sums[decision] += count
    return sums


def _tiles(sums: Mapping[str, int], live: Live | None) -> str:
    tiles = {
        "legacy calls": sums["legacy"],
        "fallback calls": sums["fallback"],
        "hardened calls": sums["hardened"],
        "refused": sums["refused"],
        "would be refused": sums["would-refuse"],
        **(live.facts if live else {}),
    }
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{inert(str(value))}</dd></div>" for name, value in tiles.items()
    )
    return f'<dl class="tiles">{cells}</dl>\n'


def _chart(bars: Sequence[Bar]) -> str:
    if not bars:
        return '<section><h2 id="time">Calls over time</h2><p>None yet.</p></section>\n'
    key = "".join(
        f'<li><svg viewBox="0 0 9 9" aria-hidden="true"><rect class="{kind}" width="9" height="9"/></svg> '
        f"{kind}</li>"
        for kind in KINDS
    )
    rows = "".join(
        f'<tr><th scope="row">{bar.label}</th>{"".join(f"<td>{count}</td>" for count in bar.counts)}</tr>'
        for bar in bars
        if bar.total
    )
    head = "".join(f'<th scope="col">{kind}</th>' for kind in ("time (UTC)", *KINDS))
    return (
        '<section aria-labelledby="time"><h2 id="time">Calls over time</h2>'
        f'<ul class="key">{key}</ul>{svg_of(bars)}<details><summary>As a table</summary>'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></details></section>\n"
    )


def _fixes(merge: Merge) -> str:
    fixes = merge.fixes()
    if not fixes:
        return ""
    lines = "".join(f"<li>{inert(line)}</li>" for line in fix_lines(fixes[:_MOST_ROWS]))
    return f'<section aria-labelledby="fixes"><h2 id="fixes">By fix</h2><ul>{lines}</ul></section>\n'


def _callers(merge: Merge) -> Iterator[str]:
    yield '<section id="main" aria-labelledby="callers"><h2 id="callers">Callers that need a change</h2>'
    callers = list(islice(merge.callers(needing_change=True), _MOST_ROWS + 1))
    if not callers:
        yield "<p>No caller was seen in normal mode.</p></section>\n"
        return
    head = "".join(f'<th scope="col">{title}</th>' for title in _CALLERS)
    yield f'<table class="cards"><thead><tr>{head}</tr></thead><tbody>\n'
    for caller in callers[:_MOST_ROWS]:
        cells = zip(_CALLERS[1:], _row(caller), strict=True)
        name = name_of(caller.exe, caller.script, caller.unit, caller.container, caller.pod)
        yield f'<tr><th scope="row">{inert(name)}</th>'
        yield "".join(f'<td data-label="{title}">{inert(text)}</td>' for title, text in cells)
        yield "</tr>\n"
    yield "</tbody></table>"
    if len(callers) > _MOST_ROWS:
        yield f"<p>The first {_MOST_ROWS} are shown; <code>report --csv</code> has them all.</p>"
    yield "</section>\n"


def _row(caller: MergedCaller) -> tuple[str, ...]:
    sessions = caller.sessions
    calls = ", ".join(f"{sessions[kind]} {kind}" for kind in ("legacy", "fallback") if sessions[kind])
    client = " ".join(part for part in (caller.client.name, caller.client.version) if part)
    return (
        caller.user or "",
        "" if caller.hosts is None else str(caller.hosts),
        iso(caller.last_seen) or "",
        calls,
        ", ".join(caller.items),
        client,
        advice_for(caller) or "",
    )


def _refusals(timeline: Iterable[tuple[int, str, str, int]], live: Live | None) -> str:
    rows = {f"refused: {slug}": count for slug, count in (live.refusals if live else {}).items() if count}
    if not rows:
        for _, session, decision, count in timeline:
            if decision != "allowed":
                rows[f"{decision}, {session}"] = rows.get(f"{decision}, {session}", 0) + count
    if not rows:
        return ""
    since = "since the start of the daemon" if live else "of the whole time"
    cells = "".join(
        f'<tr><th scope="row">{inert(name)}</th><td>{count}</td></tr>' for name, count in rows.items()
    )
    return (
        f'<section aria-labelledby="refusals"><h2 id="refusals">Refusals</h2>'
        f"<table><caption>{since}</caption><tbody>{cells}</tbody></table></section>\n"
    )


def _gaps(merge: Merge) -> str:
    if not merge.gaps:
        return ""
    lines = "".join(
        f"<li>{inert(gap.host)}: {iso(gap.begin)} to {iso(gap.end)}: {inert(gap.reason)}</li>"
        for gap in islice(merge.gaps, _MOST_ROWS)
    )
    return (
        '<section aria-labelledby="gaps"><h2 id="gaps">Times that were not watched</h2>'
        f"<ul>{lines}</ul></section>\n"
    )
