"""`imds-proxy intercept up | down | status`: asks the running daemon; without one, does what can be done."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from imds_proxy.config import Config, ConfigErrors, load_or_default
from imds_proxy.intercept import alone, passing
from imds_proxy.intercept.redirect import InterceptError
from imds_proxy.intercept.report import Report, as_text, exit_code, read
from imds_proxy.server.admin import ask
from imds_proxy.server.intercepting import METHODS, services_of

_OK, _FAILED, _CONFIGURATION_REFUSED = 0, 1, 78


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to do, and where the daemon is."""
    parser.description = (
        "The redirect of the metadata service's address to the proxy. `up` twice is the same as once; `down` "
        "leaves nothing behind. Exit code of `status`: 0 in force, 1 not, 3 unknown."
    )
    parser.add_argument("action", choices=("up", "down", "status"))
    parser.add_argument(
        "--takeover",
        action="store_true",
        help="with up: also close the connections that are open to the service and go past the redirect",
    )
    parser.add_argument("--json", action="store_true", help="the state as JSON (schema 1)")
    parser.add_argument("-c", "--config", type=Path, metavar="FILE", help="the daemon's configuration (YAML)")
    parser.add_argument("--socket", type=Path, help="admin socket, in place of the configuration's")


def run(args: argparse.Namespace) -> int:
    """0 done, or in force; 1 failed, or not in force; 3 unknown; 78 the configuration is refused."""
    try:
        config = load_or_default(args.config)
    except ConfigErrors as errors:
        for error in errors.errors:
            print(error, file=sys.stderr)
        return _CONFIGURATION_REFUSED
    socket = Path(args.socket or config.admin.socket)
    try:
        answer = ask(socket, f"intercept-{args.action}", {"takeover": args.takeover})
    except (OSError, ValueError):
        return _alone(args, config)
    return _told(args, answer)


def _told(args: argparse.Namespace, answer: dict[str, Any]) -> int:
    """What a daemon has answered."""
    if not answer["ok"]:
        return _failed(args, answer["errors"])
    if args.action == "down":
        return _went_down(answer["was_up"])
    report = read(answer["report"])
    if args.action == "up" and answer["closed"] is not None:
        print(f"closed {answer['closed']} connections that were open to the service", file=sys.stderr)
    _show(args, report)
    return exit_code(report)


def _alone(args: argparse.Namespace, config: Config) -> int:
    services = services_of(config)
    try:
        if args.action == "down":
            return _went_down(alone.down(config.intercept, services, METHODS))
        if args.action == "up":
            alone.up(config.intercept, services, METHODS)
            if args.takeover:
                print(f"closed {passing.close(passing.passing(services, ()))} connections", file=sys.stderr)
    except (InterceptError, OSError) as error:
        return _failed(args, [str(error)])
    report = alone.report(config.intercept, services, METHODS)
    _show(args, report)
    return _OK if args.action == "up" else exit_code(report)


def _went_down(was_up: bool) -> int:
    print("down: calls go to the metadata service itself" if was_up else "it was not up")
    return _OK


def _failed(args: argparse.Namespace, errors: list[str]) -> int:
    for error in errors:
        print(f"imds-proxy intercept {args.action}: {error}", file=sys.stderr)
    return 3 if args.action == "status" else _FAILED


def _show(args: argparse.Namespace, report: Report) -> None:
    print(json.dumps(report.as_json()) if args.json else as_text(report), end="\n" if args.json else "")
