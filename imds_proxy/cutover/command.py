"""The commands `cutover` and `probe`: options, files, and what is printed."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from imds_proxy.config import Config, ConfigErrors, load_or_default
from imds_proxy.config_values import Duration, printable
from imds_proxy.cutover.ecs import CloudError, Ecs
from imds_proxy.cutover.journal import Journal
from imds_proxy.cutover.probing import probe_by_command, probe_here
from imds_proxy.cutover.rollout import Rollout, Terms
from imds_proxy.cutover.sources import normal_mode_counts, traced_calls, unseen
from imds_proxy.cutover.steps import Instance, Probe
from imds_proxy.protocol.profile import PROFILES

_OK, _FAILED, _USAGE, _UNKNOWN = 0, 1, 2, 3
_ID = re.compile(r"i-[0-9a-z]{1,60}")
_READY = "READY"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which instances, by what terms."""
    parser.add_argument("--instance", action="append", default=[], metavar="ID", help="repeatable")
    parser.add_argument("--instances", type=Path, metavar="FILE", help="ids, one a line; # begins a comment")
    parser.add_argument("--region", required=True, help="such as cn-hangzhou")
    parser.add_argument(
        "--ready",
        action="append",
        default=[],
        metavar="ID=FILE",
        help="an instance's output of `imds-proxy ready --json`; without ID= that of every instance named",
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything, change nothing")
    parser.add_argument("--rollback", action="store_true", help="set HttpTokens=optional again, and no more")
    parser.add_argument("--parallel", type=int, default=1, metavar="N", help="at a time (1 to 20; default 1)")
    parser.add_argument("--settle", type=_duration, default=60.0, help="longest until it shows (default 60s)")
    parser.add_argument("--watch", type=_duration, default=300.0, help="how long refusals are watched (5m)")
    parser.add_argument("--every", type=_duration, default=5.0, help="between two looks (default 5s)")
    parser.add_argument(
        "--tolerate", type=int, default=0, metavar="N", help="callers' failed requests before it goes back"
    )
    parser.add_argument("--journal", type=Path, metavar="FILE", help="what was done, to go on from")
    parser.add_argument(
        "--probe",
        metavar="CMD",
        help="how another machine is asked: runs `imds-proxy probe --json` there, for instance by ssh to "
        "$PRIVATE_IP; without it this machine is asked, so only its own instance can be cut over",
    )
    parser.add_argument("--endpoint", metavar="URL", help="of the ECS API, in place of the region's own")
    parser.add_argument("--cloudmonitor", type=Path, metavar="FILE", help="normal-mode counts, to compare")
    parser.add_argument("--analyzer", type=Path, metavar="FILE", help="the packet analyzer's log, to compare")
    parser.add_argument("--report", type=Path, metavar="FILE", help="`imds-proxy report --json`, to compare")
    parser.add_argument("-c", "--config", type=Path, metavar="FILE", help="the daemon's configuration (YAML)")


def add_probe_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the daemon is."""
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("-c", "--config", type=Path, metavar="FILE", help="the daemon's configuration (YAML)")


def run_probe(args: argparse.Namespace) -> int:
    """Says what the real service answers: 0 hardened, 1 it still takes plain GETs, 3 it does not answer."""
    try:
        probe = _probe_here(load_or_default(args.config))
    except ConfigErrors as errors:
        return _refused(errors)
    if args.json:
        print(json.dumps({"v1": probe.v1, "v2": probe.v2, "failed": probe.failed}))
    else:
        print(probe)
    if probe.v1 is None or probe.v2 is None:
        return _UNKNOWN
    return _OK if probe.is_hardened else _FAILED


def run(args: argparse.Namespace) -> int:
    """Cuts over; 0 when all are, 1 when one is not, 2 for wrong usage."""
    try:
        config = load_or_default(args.config)
        ids = _ids(args.instance, args.instances)
        if not 1 <= args.parallel <= 20:
            raise ValueError(f"--parallel {args.parallel}: 1 to 20 are allowed")
        if args.tolerate < 0:
            raise ValueError(f"--tolerate {args.tolerate}: 0 or more are allowed")
        verdicts = _verdicts(args.ready, ids)
        gaps = _gaps(args)
        journal = Journal(args.journal)
    except ConfigErrors as errors:
        return _refused(errors)
    except (ValueError, OSError) as error:
        print(f"imds-proxy cutover: {error}", file=sys.stderr)
        return _USAGE
    for gap in gaps:
        print(f"gap: {gap}")
    if gaps and not (args.dry_run or args.rollback):
        print("stopped: the ledger did not see all; look into these, or leave the files out", file=sys.stderr)
        return _FAILED

    def probe(instance: Instance) -> Probe:
        return probe_by_command(args.probe, instance) if args.probe else _probe_here(config)

    terms = Terms(args.parallel, args.settle, args.watch, args.every, args.tolerate, args.dry_run, verdicts)
    try:
        cloud = Ecs(args.region, args.endpoint)
        rollout = Rollout(cloud, probe, journal, terms, lambda line: print(line, flush=True))
        done = rollout.roll_back(ids) if args.rollback else rollout.run(ids)
    except (CloudError, OSError) as error:
        print(f"imds-proxy cutover: {error}", file=sys.stderr)
        return _FAILED
    return _OK if done else _FAILED


def _duration(text: str) -> float:
    try:
        return Duration(0, 86400).read(text, "str")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _ids(given: Sequence[str], file: Path | None) -> list[str]:
    lines = file.read_text(encoding="utf-8").splitlines() if file else []
    named = [(f"{file}:{number}", line.partition("#")[0].strip()) for number, line in enumerate(lines, 1)]
    found = [("--instance", one) for one in given] + [(where, one) for where, one in named if one]
    for where, one in found:
        if not _ID.fullmatch(one):
            raise ValueError(f"{where}: {printable(one)} is no instance id, such as i-bp1abc")
    if not found:
        raise ValueError("no instance is named; use --instance ID or --instances FILE")
    return list(dict.fromkeys(one for _, one in found))


def _verdicts(given: Sequence[str], ids: Sequence[str]) -> dict[str, str]:
    verdicts: dict[str, str] = {}
    for one in given:
        name, equals, path = one.partition("=")
        if not equals or not _ID.fullmatch(name):
            name, path = "", one
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
            verdict = found["questions"]["required"]["verdict"]
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path} is no output of `imds-proxy ready --json`") from None
        verdicts.update(dict.fromkeys([name] if name else ids, str(verdict)))
    return verdicts


def _gaps(args: argparse.Namespace) -> list[str]:
    counts = normal_mode_counts(args.cloudmonitor.read_text()) if args.cloudmonitor else {}
    calls = traced_calls(args.analyzer.read_text(errors="replace")) if args.analyzer else []
    callers = json.loads(args.report.read_text())["callers"] if args.report else []
    return list(unseen(counts, calls, callers))


def _probe_here(config: Config) -> Probe:
    address = config.upstream.address
    return probe_here(config.admin.socket, address.host, address.port, PROFILES[config.provider])


def _refused(errors: ConfigErrors) -> int:
    for error in errors.errors:
        print(error, file=sys.stderr)
    return 78
