"""The command line: words to calls. Each command's room is imported only when it runs."""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from imds_proxy import __version__

OK, FAILED, USAGE, CONFIGURATION_REFUSED = 0, 1, 2, 78


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; the exit code is 0 ok, 1 failed, 2 wrong usage, 78 configuration refused."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments[0] if arguments else ""
    # Each parser takes time: only that of the command, where one is named; else none has options yet.
    args = _parser([command] if command in _COMMANDS else list(_COMMANDS), [command]).parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = args.command
    try:
        return run(args)
    except KeyboardInterrupt:
        return FAILED
    except BrokenPipeError:
        sys.stderr.close()  # whoever read the output has left; nothing is wrong
        return FAILED


def parser() -> argparse.ArgumentParser:
    """All commands with all their options, for the manual."""
    return _parser(list(_COMMANDS), list(_COMMANDS))


def _parser(names: Sequence[str], with_options: Sequence[str]) -> argparse.ArgumentParser:
    """These commands; those `with_options` have them from their rooms."""
    top = argparse.ArgumentParser(
        prog="imds-proxy",
        description="Upgrades normal-mode calls to the ECS metadata service to its security-hardened mode.",
    )
    top.add_argument("--version", action="version", version=f"imds-proxy {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for name in names:
        help_text, add_arguments, run = _COMMANDS[name]
        sub = commands.add_parser(name, help=help_text, description=help_text)
        if name in with_options:
            add_arguments(sub)
        sub.set_defaults(command=run)
    return top


def _config_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--config", type=Path, metavar="FILE", help="configuration file (YAML)")


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    _config_argument(parser)
    parser.add_argument(
        "--listen", action="append", metavar="H:P", help="address to listen on (repeatable; port 0: any)"
    )
    parser.add_argument("--upstream", metavar="H:P", help="address of the metadata service")
    parser.add_argument("--mode", choices=("upgrade", "enforce", "passthrough"))
    parser.add_argument(
        "--intercept", action="store_true", help="redirect the service's address to the proxy while it runs"
    )
    parser.add_argument("--admin", metavar="H:P", help="address of /metrics and health (port 0: any)")


def _run(args: argparse.Namespace) -> int:
    # Callers wait for the daemon: what is made until it serves is no garbage. It saves a sixth of the time.
    gc.disable()
    from imds_proxy.config import DEFAULT_PATH, Config, ConfigErrors, load, override

    path = args.config or (DEFAULT_PATH if DEFAULT_PATH.exists() else None)

    def read() -> Config:
        config = load(path) if path else Config()
        return override(config, listen=args.listen, upstream=args.upstream, mode=args.mode, admin=args.admin)

    try:
        config = read()
    except ConfigErrors as errors:
        for error in errors.errors:
            print(error, file=sys.stderr)
        return CONFIGURATION_REFUSED
    except ValueError as error:
        print(f"imds-proxy run: {error}", file=sys.stderr)
        return USAGE
    from imds_proxy.server.run import run

    gc.enable()
    gc.freeze()
    return run(config, read, intercept=args.intercept)


def _check(args: argparse.Namespace) -> int:
    from imds_proxy.advice.check import run_check

    return run_check(args.config, sys.stdout, sys.stderr)


def _emulate_arguments(parser: argparse.ArgumentParser) -> None:
    from imds_proxy.emulator.command import add_arguments

    add_arguments(parser)


def _emulate(args: argparse.Namespace) -> int:
    from imds_proxy.emulator.command import run

    return run(args)


def _demo_arguments(parser: argparse.ArgumentParser) -> None:
    from imds_proxy.demo.command import add_arguments

    add_arguments(parser)


def _demo(args: argparse.Namespace) -> int:
    from imds_proxy.demo.command import run

    return run(args)


def _doctor_arguments(parser: argparse.ArgumentParser) -> None:
    from imds_proxy.doctor import add_arguments

    add_arguments(parser)


def _doctor(args: argparse.Namespace) -> int:
    from imds_proxy.doctor import run

    return run(args)


def _report_arguments(parser: argparse.ArgumentParser) -> None:
    from imds_proxy.ledger.report_command import add_arguments

    add_arguments(parser)


def _report(args: argparse.Namespace) -> int:
    from imds_proxy.ledger.report_command import main

    return main(args)


def _ready_arguments(parser: argparse.ArgumentParser) -> None:
    from imds_proxy.ledger.ready_command import add_arguments

    add_arguments(parser)


def _ready(args: argparse.Namespace) -> int:
    from imds_proxy.ledger.ready_command import main

    return main(args)


def _reload_arguments(parser: argparse.ArgumentParser) -> None:
    from imds_proxy.control import add_arguments

    add_arguments(parser)


def _reload(args: argparse.Namespace) -> int:
    from imds_proxy.control import run_reload

    return run_reload(args)


def _watch_arguments(parser: argparse.ArgumentParser) -> None:
    from imds_proxy.control import add_watch_arguments

    add_watch_arguments(parser)


def _watch(args: argparse.Namespace) -> int:
    from imds_proxy.control import run_watch

    return run_watch(args)


def _intercept_arguments(parser: argparse.ArgumentParser) -> None:
    from imds_proxy.control_intercept import add_arguments

    add_arguments(parser)


def _intercept(args: argparse.Namespace) -> int:
    from imds_proxy.control_intercept import run

    return run(args)


def _dashboard_arguments(parser: argparse.ArgumentParser) -> None:
    from imds_proxy.dashboard.command import add_arguments

    add_arguments(parser)


def _dashboard(args: argparse.Namespace) -> int:
    from imds_proxy.dashboard.command import run

    return run(args)


def _observe_arguments(parser: argparse.ArgumentParser) -> None:
    from imds_proxy.observe.command import add_arguments

    add_arguments(parser)


def _observe(args: argparse.Namespace) -> int:
    from imds_proxy.observe.command import run

    return run(args)


def _cutover_arguments(parser: argparse.ArgumentParser) -> None:
    from imds_proxy.cutover.command import add_arguments

    add_arguments(parser)


def _cutover(args: argparse.Namespace) -> int:
    from imds_proxy.cutover.command import run

    return run(args)


def _probe_arguments(parser: argparse.ArgumentParser) -> None:
    from imds_proxy.cutover.command import add_probe_arguments

    add_probe_arguments(parser)


def _probe(args: argparse.Namespace) -> int:
    from imds_proxy.cutover.command import run_probe

    return run_probe(args)


def _policy_arguments(parser: argparse.ArgumentParser) -> None:
    from imds_proxy.advice.command import add_arguments

    add_arguments(parser)


def _policy(args: argparse.Namespace) -> int:
    from imds_proxy.advice.command import run

    return run(args)


_Command = tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int]]
_COMMANDS: dict[str, _Command] = {
    "demo": ("try it: an emulator, the proxy, and real old and new clients", _demo_arguments, _demo),
    "run": ("the daemon", _run_arguments, _run),
    "intercept": ("redirect the service's address: up, down, status", _intercept_arguments, _intercept),
    "check": ("validate a configuration: every error in one go", _config_argument, _check),
    "reload": ("let the running daemon read its configuration again", _reload_arguments, _reload),
    "watch": ("print an item each time it changes, or run a program then", _watch_arguments, _watch),
    "policy": ("suggest, explain or test the rules", _policy_arguments, _policy),
    "report": (
        "callers that still need a change, and which, over any number of hosts",
        _report_arguments,
        _report,
    ),
    "ready": ("may we switch yet: READY, NOT READY or UNKNOWN, and why", _ready_arguments, _ready),
    "dashboard": ("the live page, on a loopback port", _dashboard_arguments, _dashboard),
    "observe": ("watch and name callers; nothing is redirected", _observe_arguments, _observe),
    "cutover": ("set HttpTokens=required by the ECS API, and verify", _cutover_arguments, _cutover),
    "probe": ("what the real service answers with and without a token", _probe_arguments, _probe),
    "doctor": ("say what will work on this machine, what not, and what to do", _doctor_arguments, _doctor),
    "emulate": ("an ECS metadata service for trials and tests", _emulate_arguments, _emulate),
}
