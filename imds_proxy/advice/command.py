"""`imds-proxy policy suggest|explain|test`: the words of the command line, and which answer they get."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from imds_proxy.advice import expectations, suggestions
from imds_proxy.advice.explain import caller_of, explain
from imds_proxy.callers.resolver import Resolver
from imds_proxy.config import ConfigErrors, load_or_default
from imds_proxy.policy.decision import Policy
from imds_proxy.protocol.session import Session
from imds_proxy.server.build import policy_of, watched_by

_FACTS = ("exe", "sha256", "script", "user", "group", "uid", "unit", "container", "parent")
_SESSIONS = tuple(session.value for session in Session if session is not Session.TOKEN)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Suggest, explain, test."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="policy_command")
    one = commands.add_parser("suggest", help="an allowlist from what the daemon saw")
    one.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="ledgers or JSON logs of `imds-proxy run`"
    )
    one = commands.add_parser("explain", help="which rule decides for a process and a path, and why")
    one.add_argument("--path", required=True, help="an item, like meta-data/ram/security-credentials/")
    one.add_argument("--session", choices=_SESSIONS, default="legacy")
    one.add_argument("--pid", type=int, help="a process of this machine, in place of facts")
    for fact in _FACTS:
        one.add_argument(f"--{fact}", help=argparse.SUPPRESS if fact == "sha256" else f"the caller's {fact}")
    one.add_argument("--json", action="store_true", help="as JSON")
    one = commands.add_parser("test", help="expectations in a YAML file beside the policy")
    one.add_argument("file", type=Path, metavar="FILE", help="YAML with a list under `expect`")
    for one in commands.choices.values():
        one.add_argument("-c", "--config", type=Path, metavar="FILE", help="configuration file (YAML)")


def run(args: argparse.Namespace) -> int:
    """0 ok, 1 failed (explain: refused), 2 wrong usage, 78 configuration refused."""
    try:
        policy = policy_of(load_or_default(args.config))
    except ConfigErrors as refused:
        for error in refused.errors:
            sys.stderr.write(f"{error}\n")
        return os.EX_CONFIG
    if args.policy_command == "suggest":
        return suggestions.run(args.files, policy, sys.stdout, sys.stderr)
    if args.policy_command == "test":
        return expectations.run(policy, args.file, sys.stdout, sys.stderr)
    return _explain(args, policy)


def _explain(args: argparse.Namespace, policy: Policy) -> int:
    facts = {fact: getattr(args, fact) for fact in _FACTS}
    given = [fact for fact, value in facts.items() if value is not None]
    if args.pid is not None and given:
        sys.stderr.write(f"imds-proxy policy explain: --pid or --{given[0]}, not both\n")
        return 2
    try:
        if args.pid is not None:
            resolver = Resolver()
            try:
                resolver.watch(*watched_by(policy))
                caller = resolver.process(args.pid)
            finally:
                resolver.close()
        else:
            caller = caller_of(facts)
        found = explain(policy, caller, args.path, Session(args.session))
    except OSError as error:
        sys.stderr.write(f"imds-proxy policy explain: process {args.pid}: {error.strerror}\n")
        return 1
    except ValueError as error:
        sys.stderr.write(f"imds-proxy policy explain: {error}\n")
        return 2
    sys.stdout.write(json.dumps(found.as_json(), indent=2) + "\n" if args.json else found.as_text())
    return 1 if found.outcome == "refused" else 0
