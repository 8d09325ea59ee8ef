"""Commands that ask the running daemon by its admin socket: `reload` and `watch`."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from imds_proxy.config import ConfigErrors, load_or_default
from imds_proxy.config_values import printable
from imds_proxy.server.admin import ask

_OK, _FAILED, _CONFIGURATION_REFUSED = 0, 1, 78
_AGAIN = 1.0  # seconds until a daemon that does not answer is asked again


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the daemon is."""
    parser.add_argument("-c", "--config", type=Path, metavar="FILE", help="the daemon's configuration (YAML)")
    parser.add_argument("--socket", type=Path, help="admin socket, in place of the configuration's")


def add_watch_arguments(parser: argparse.ArgumentParser) -> None:
    """The item, and what to do."""
    parser.add_argument(
        "path", metavar="PATH", help="an item, such as meta-data/instance/spot/termination-time"
    )
    parser.add_argument(
        "--exec",
        metavar="CMD",
        help="run CMD by sh at each change, with IMDS_PATH, IMDS_STATUS (200 or 404) and IMDS_VALUE",
    )
    parser.add_argument("--once", action="store_true", help="end after the first change")
    add_arguments(parser)


def run_reload(args: argparse.Namespace) -> int:
    """Lets the daemon read its configuration again, and says the outcome."""
    socket = _socket_of(args)
    if socket is None:
        return _CONFIGURATION_REFUSED
    try:
        answer = ask(socket, "reload")
    except (OSError, ValueError) as failure:
        print(f"imds-proxy reload: {socket}: no daemon answers there: {failure}", file=sys.stderr)
        return _FAILED
    for line in answer["errors"]:
        print(line, file=sys.stderr)
    if not answer["ok"]:
        print("refused; the old configuration stays in force", file=sys.stderr)
        return _FAILED
    restart = ", ".join(answer["restart"])
    print("reloaded" + (f"; needs a restart to take effect: {restart}" if restart else ""))
    return _OK


def run_watch(args: argparse.Namespace) -> int:
    """Prints an item each time it changes (a 404: that it is not there), until interrupted.

    What it is at the beginning goes to stderr. A daemon that restarts is waited for.
    """
    socket = _socket_of(args)
    if socket is None:
        return _CONFIGURATION_REFUSED
    known: str | None = None
    while True:
        try:
            answer = ask(socket, "watch", {"path": args.path, "known": known})
        except (OSError, ValueError) as failure:
            if known is None:
                print(f"imds-proxy watch: {socket}: no daemon answers there: {failure}", file=sys.stderr)
                return _FAILED
            time.sleep(_AGAIN)
            continue
        if not answer["ok"]:
            for line in answer["errors"]:
                print(f"imds-proxy watch: {line}", file=sys.stderr)
            return _FAILED
        if not answer["changed"]:
            continue
        first, known = known is None, answer["digest"]
        if first:
            print(f"now: {_shown(answer)}", file=sys.stderr, flush=True)
            continue
        _tell(args, answer)
        if args.once:
            return _OK


def _tell(args: argparse.Namespace, answer: dict[str, Any]) -> None:
    print(_shown(answer), flush=True)
    if args.exec:
        facts = {
            "IMDS_PATH": args.path,
            "IMDS_STATUS": str(answer["status"]),
            # No environment can hold a NUL.
            "IMDS_VALUE": answer["value"].replace("\0", ""),
        }
        words = ["/bin/sh", "-c", args.exec]
        ended = subprocess.run(words, env={**os.environ, **facts}, check=False)  # noqa: S603  what it is for
        if ended.returncode:
            print(f"imds-proxy watch: {args.exec}: exit {ended.returncode}", file=sys.stderr)


def _shown(answer: dict[str, Any]) -> str:
    if answer["status"] == 404:
        return "(absent)"
    # Lines stay lines; what could move a terminal's cursor does not.
    return "\n".join(printable(line) for line in str(answer["value"]).splitlines())


def _socket_of(args: argparse.Namespace) -> Path | None:
    """The admin socket; None, said, where the configuration is refused."""
    try:
        return Path(args.socket or load_or_default(args.config).admin.socket)
    except ConfigErrors as errors:
        for error in errors.errors:
            print(error, file=sys.stderr)
        return None
