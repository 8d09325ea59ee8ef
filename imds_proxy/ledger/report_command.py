"""`imds-proxy report`: the words of the command line, and what is merged for them."""

from __future__ import annotations

import argparse
import sys
import time
import zlib
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import TextIO

from imds_proxy.config import ConfigErrors
from imds_proxy.config_values import Duration, printable
from imds_proxy.ledger.logs import LogReader
from imds_proxy.ledger.merging import Merge
from imds_proxy.ledger.page import write_page
from imds_proxy.ledger.report import render_table, write_csv, write_json
from imds_proxy.ledger.schema import NotALedger
from imds_proxy.ledger.sources import expand, is_ledger, ledger_path, opened_log

_AGO = Duration(1, 36600 * 86400.0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `imds-proxy report`."""
    parser.add_argument(
        "files",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="ledgers and JSON logs of any number of hosts, directories of them; none: this machine's ledger",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as JSON, all callers")
    form.add_argument("--csv", action="store_true", help="as CSV, all callers")
    form.add_argument("--html", type=Path, metavar="FILE", help="as one self-contained page, into FILE")
    parser.add_argument(
        "--since", type=moment, metavar="WHEN", help="what was seen since: 14d, 12h, or 2026-11-24T00:00:00Z"
    )
    parser.add_argument(
        "-c", "--config", type=Path, metavar="FILE", help="configuration that names this machine's ledger"
    )


def run(args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """0; 1 when a file could not be read (it is said, and the rest reported); 78 configuration refused."""
    try:
        files = args.files or [ledger_path(args.config)]
    except ConfigErrors as errors:
        err.writelines(f"{error}\n" for error in errors.errors)
        return 78
    with Merge(args.since) as merge:
        good = add_files(merge, files, err)
        if args.html:
            try:
                with args.html.open("w", encoding="utf-8") as page:
                    write_page(merge, page)
            except OSError as error:
                err.write(f"imds-proxy report: {printable(str(args.html))}: {error.strerror}\n")
                return 1
        else:
            _writer(args)(merge, out)
    return 0 if good else 1


def add_files(merge: Merge, files: Iterable[Path], err: TextIO) -> bool:
    """Merges files; one that cannot be read is said and passed over. Whether all could."""
    good, skipped = True, 0
    for path in _expanded(files, err):
        try:
            if is_ledger(path):
                if not merge.add_ledger(path):
                    _say(err, path, "the same ledger was given before; it counts once")
                continue
            with opened_log(path) as lines:
                reader = LogReader(merge.since)
                merge.add_log(reader.read(lines), reader.hosts)
                skipped += reader.skipped
        except (OSError, EOFError, zlib.error) as error:
            _say(err, path, getattr(error, "strerror", None) or str(error))
            good = False
        except NotALedger as error:
            _say(err, path, str(error))
            good = False
    if skipped:
        err.write(f"imds-proxy report: passed over {skipped} lines that are not the daemon's JSON\n")
    for host in merge.doubled:
        name = printable(host)
        err.write(f"imds-proxy report: {name}: a ledger and a log were given; what is in both counts twice\n")
    return good


def moment(text: str) -> float:
    """Unix seconds of `14d` (ago) or of an ISO 8601 time. Raises ArgumentTypeError."""
    try:
        return time.time() - _AGO.read(text, "str")
    except ValueError:
        pass
    try:
        when = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{printable(text)!r} is no time; write how long ago (14d, 12h) or 2026-11-24T00:00:00Z"
        ) from None
    return (when if when.tzinfo else when.replace(tzinfo=timezone.utc)).timestamp()


def _writer(args: argparse.Namespace) -> Callable[[Merge, TextIO], object]:
    if args.json:
        return write_json
    if args.csv:
        return write_csv
    return lambda merge, out: out.write(render_table(merge))


def _expanded(files: Iterable[Path], err: TextIO) -> Iterable[Path]:
    try:
        yield from expand(files)
    except OSError as error:
        _say(err, Path(error.filename or "?"), error.strerror or str(error))


def _say(err: TextIO, path: Path, why: str) -> None:
    err.write(f"imds-proxy report: {printable(str(path))}: {printable(why)}\n")


def main(args: argparse.Namespace) -> int:
    """The command, with the terminal's streams."""
    return run(args, sys.stdout, sys.stderr)
