"""`imds-proxy ready`: the verdict over one ledger or many, as an exit code and in words."""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from imds_proxy.config import ConfigErrors
from imds_proxy.config_values import printable
from imds_proxy.ledger.coverage import Gap
from imds_proxy.ledger.reading import Now, history_of, identity_of
from imds_proxy.ledger.report import iso, shown
from imds_proxy.ledger.schema import NotALedger, open_to_read
from imds_proxy.ledger.sources import expand, ledger_path
from imds_proxy.ledger.verdict import DAY, Answer, Readiness, Reason, Verdict, assess

EXIT = {Verdict.READY: 0, Verdict.NOT_READY: 1, Verdict.UNKNOWN: 3}
_QUESTIONS = {
    "required": "may HttpTokens become required while the proxy is in place",
    "removed": "may the proxy be removed, with HttpTokens required",
}
_MOST_LINES = 50
_FRESH = DAY  # a copied ledger is judged by its own end if that is no older


@dataclass(frozen=True, slots=True)
class HostReadiness:
    """What one ledger says; `host` may be a file's name where the ledger does not say whose it is."""

    host: str
    readiness: Readiness


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `imds-proxy ready`."""
    parser.add_argument(
        "files", nargs="*", type=Path, metavar="FILE", help="ledgers of hosts; none: this machine's own"
    )
    parser.add_argument(
        "--days", type=_days, default=14.0, metavar="N", help="the window to be judged (default: %(default)g)"
    )
    parser.add_argument(
        "--for",
        dest="question",
        choices=tuple(_QUESTIONS),
        default="removed",
        help="which answer is the exit code: required (with the proxy in place) or removed (the default)",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument(
        "-c", "--config", type=Path, metavar="FILE", help="configuration that names this machine's ledger"
    )


def run(args: argparse.Namespace, now: float, own: Now, out: TextIO, err: TextIO) -> int:
    """0 READY, 1 NOT READY, 3 UNKNOWN; 78 configuration refused. `own` are this machine's boot and clocks."""
    try:
        files, here = list(args.files), None
        if not files:
            files, here = [ledger_path(args.config)], own
    except ConfigErrors as errors:
        err.writelines(f"{error}\n" for error in errors.errors)
        return 78
    hosts = [_judged(path, now, args.days, here) for path in _expanded(files)]
    verdicts = {name: overall(hosts, name) for name in _QUESTIONS}
    if args.json:
        out.write(json.dumps(as_json(hosts, args.question, now, args.days), indent=2) + "\n")
    else:
        out.write(as_text(hosts, args.days))
    return EXIT[verdicts[args.question]]


def overall(hosts: Iterable[HostReadiness], question: str) -> Verdict:
    """The worst of all hosts; without any it is not known."""
    found = {_answer(one, question).verdict for one in hosts}
    for verdict in (Verdict.NOT_READY, Verdict.UNKNOWN, Verdict.READY):
        if verdict in found:
            return verdict
    return Verdict.UNKNOWN


def as_json(hosts: list[HostReadiness], question: str, now: float, days: float) -> dict[str, Any]:
    """`verdict` answers `question`; `questions` has both, with the reasons of every host."""
    gaps = [
        {"from": iso(gap.begin), "to": iso(gap.end), "host": one.host, "reason": gap.reason}
        for one in hosts
        for gap in one.readiness.gaps
    ]
    begin = min((one.readiness.begin for one in hosts), default=now - days * DAY)
    return {
        "schema": 1,
        "verdict": overall(hosts, question).value,
        "question": question,
        "window": {"from": iso(begin), "to": iso(now), "gaps": gaps},
        "questions": {
            name: {
                "verdict": overall(hosts, name).value,
                "reasons": [
                    {
                        "host": one.host,
                        "kind": reason.kind,
                        "subject": reason.subject,
                        "text": reason.text,
                        "blocks": reason.blocks,
                    }
                    for one in hosts
                    for reason in _answer(one, name).reasons
                ],
            }
            for name in _QUESTIONS
        },
    }


def as_text(hosts: list[HostReadiness], days: float) -> str:
    """For a terminal: each question, its verdict, what is in the way."""
    lines = []
    for name, question in _QUESTIONS.items():
        lines.append(f"{overall(hosts, name).value:<10} {question} (by the last {days:g} days)")
        reasons = [(one, reason) for one in hosts for reason in _answer(one, name).reasons]
        reasons.sort(key=lambda pair: not pair[1].blocks)
        for one, reason in reasons[:_MOST_LINES]:
            where = f"{shown(one.host)}: " if len(hosts) > 1 else ""
            lines.append(f"  {where}{_said(reason)}")
        if len(reasons) > _MOST_LINES:
            lines.append(f"  … and {len(reasons) - _MOST_LINES} more: --json has them all")
    return "\n".join(lines) + "\n"


def _said(reason: Reason) -> str:
    return f"{shown(reason.subject)}: {shown(reason.text.partition(chr(10))[0])}"


def _answer(one: HostReadiness, question: str) -> Answer:
    return one.readiness.required if question == "required" else one.readiness.removed


def _judged(path: Path, now: float, days: float, own: Now | None) -> HostReadiness:
    try:
        ledger = open_to_read(path)
    except NotALedger as error:
        return _unreadable(path, str(error), now, days)
    try:
        history = history_of(ledger, own)
        _, host = identity_of(ledger)
    except sqlite3.Error as error:
        return _unreadable(path, str(error), now, days)
    finally:
        ledger.close()
    ended = max((span.end for span in history.spans), default=0.0)
    end = now if own is not None or not now - _FRESH <= ended <= now else ended
    return HostReadiness(host or path.name, assess(history, end, days))


def _unreadable(path: Path, why: str, now: float, days: float) -> HostReadiness:
    text = f"no ledger can be read there ({why}); does the daemon run, and may you read it?"
    reason = Answer((Reason("ledger", str(path), text, False),))
    gap = Gap(now - days * DAY, now, "not-running")
    return HostReadiness(path.name, Readiness(now - days * DAY, now, (gap,), reason, reason))


def _expanded(files: Iterable[Path]) -> Iterator[Path]:
    for path in files:
        try:
            yield from expand([path])
        except OSError:
            yield path  # opening it says why


def _days(text: str) -> float:
    try:
        days = float(text.removesuffix("d"))
    except ValueError:
        days = 0.0
    if not 0 < days <= 3660:
        raise argparse.ArgumentTypeError(f"{printable(text)!r} is no number of days; allowed is 1 to 3660")
    return days


def main(args: argparse.Namespace) -> int:
    """The command, with this machine's clocks."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    wall, since_boot = time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)
    return run(args, wall, (boot, wall, since_boot), sys.stdout, sys.stderr)
