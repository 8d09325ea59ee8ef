"""Calls over time as bars, in inline SVG with words for who cannot see them. Pure; no text of callers.

Hours while they fit, else days; each bar is stacked by kind of session.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

KINDS = ("legacy", "fallback", "hardened")
_HOUR, _DAY = 3600, 86400
_MOST_HOURS, _MOST_BARS = 72, 120
_WIDTH, _HEIGHT, _FOOT, _LEFT, _WIDEST = 720, 180, 20, 44, 48  # of the picture, in its own units


@dataclass(frozen=True, slots=True)
class Bar:
    """Calls of one hour or day that began at `begin` (Unix seconds), by kind of session."""

    begin: int
    label: str
    counts: tuple[int, ...]

    @property
    def total(self) -> int:
        """All kinds."""
        return sum(self.counts)


def bars_of(timeline: Iterable[tuple[int, str, str, int]]) -> list[Bar]:
    """`timeline` has hours (Unix seconds), session, decision and count. Time without calls has bars too."""
    rows = [(hour, session, count) for hour, session, _, count in timeline if session in KINDS]
    if not rows:
        return []
    first, last = min(row[0] for row in rows), max(row[0] for row in rows)
    step = _HOUR if (last - first) // _HOUR < _MOST_HOURS else _DAY
    first, last = first - first % step, last - last % step
    first = max(first, last - (_MOST_BARS - 1) * step)
    sums: dict[tuple[int, str], int] = {}
    for when, session, count in rows:
        key = (when - when % step, session)
        sums[key] = sums.get(key, 0) + count
    form = "%b %d, %H:%M" if step == _HOUR else "%b %d"
    return [
        Bar(
            begin,
            datetime.fromtimestamp(begin, timezone.utc).strftime(form),
            tuple(sums.get((begin, kind), 0) for kind in KINDS),
        )
        for begin in range(first, last + 1, step)
    ]


def svg_of(bars: Sequence[Bar]) -> str:
    """The picture. Colours are classes of the page's style (`legacy`, `fallback`, `hardened`)."""
    most = max(bar.total for bar in bars) or 1
    inner = _WIDTH - _LEFT
    room = min(_WIDEST, inner / len(bars))
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-labelledby="chart-title chart-text">',
        '<title id="chart-title">Calls over time, by kind of session</title>',
        f'<desc id="chart-text">{_sentence(bars)}</desc>',
        *_axis(most),
    ]
    for number, bar in enumerate(bars):
        parts += _stack(bar, _LEFT + number * room, room, most)
    ends = [(bars[0], float(_LEFT), "start")]
    if len(bars) > 1:
        ends.append((bars[-1], max(_LEFT + len(bars) * room, _LEFT + 200.0), "end"))
    for bar, x, anchor in ends:
        parts.append(f'<text x="{x:.2f}" y="{_HEIGHT - 4}" text-anchor="{anchor}">{bar.label}</text>')
    return "".join([*parts, "</svg>"])


def _axis(most: int) -> Iterator[str]:
    for part in (0, 1):
        y = _HEIGHT - _FOOT - part * (_HEIGHT - _FOOT - 12)
        yield f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{y}" y2="{y}" class="axis"/>'
        yield f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{_short(most * part)}</text>'


def _stack(bar: Bar, x: float, room: float, most: int) -> Iterator[str]:
    gap = min(2.0, room / 5)
    words = ", ".join(f"{count} {kind}" for kind, count in zip(KINDS, bar.counts, strict=True) if count)
    if not words:
        return
    yield f"<g><title>{bar.label}: {words}</title>"
    y = float(_HEIGHT - _FOOT)
    for kind, count in zip(KINDS, bar.counts, strict=True):
        height = count / most * (_HEIGHT - _FOOT - 12)
        if count:
            height = max(height, 1.0)  # one call of a million is still to be seen
            y -= height
            size = f'width="{room - gap:.2f}" height="{height:.2f}"'
            yield f'<rect class="{kind}" x="{x:.2f}" y="{y:.2f}" {size}/>'
    yield "</g>"


def _sentence(bars: Sequence[Bar]) -> str:
    sums = [sum(bar.counts[number] for bar in bars) for number in range(len(KINDS))]
    words = ", ".join(f"{count} {kind}" for kind, count in zip(KINDS, sums, strict=True))
    return f"From {bars[0].label} to {bars[-1].label} UTC: {words}. The table below has each."


def _short(number: int) -> str:
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if number >= 10 * size:
            return f"{number // size}{letter}"
    return str(number)
