"""`imds-proxy emulate`: options to settings, and the life of the process. Knows no HTTP."""

from __future__ import annotations

import argparse
import ipaddress
import re
import signal
import sys
from dataclasses import replace
from pathlib import Path

from imds_proxy.emulator.listener import CannotListen, authority
from imds_proxy.emulator.service import Address, Emulator
from imds_proxy.emulator.settings import Settings, SettingsError

_DEFAULT_LISTEN: Address = ("127.0.0.1", 8200)
_RATE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(?:/s)?", re.ASCII)
_STOP = {signal.SIGTERM, signal.SIGINT}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument(
        "--listen", action="append", type=_address, metavar="H:P",
        help="address to listen on (repeatable; port 0: any; default 127.0.0.1:8200)",
    )  # fmt: skip
    parser.add_argument("--control", type=_address, metavar="H:P", help="address of the control endpoint")
    parser.add_argument(
        "--http-tokens", choices=("optional", "required"), default="optional",
        help="required: hardened mode only (default optional)",
    )  # fmt: skip
    role = parser.add_mutually_exclusive_group()
    role.add_argument("--role", default="demo-role", metavar="NAME", help="RAM role (default demo-role)")
    role.add_argument("--no-role", action="store_const", const=None, dest="role", help="no RAM role")
    parser.add_argument(
        "--token-ttl-max", type=float, default=21600, metavar="S", help="no token lives longer (seconds)"
    )
    parser.add_argument("--throttle", type=_rate, metavar="N/s", help="requests a second, PUTs included")
    parser.add_argument(
        "--throttle-status", type=int, choices=(429, 503), default=429, help="what more gets (default 429)"
    )
    parser.add_argument("--retry-after", type=int, metavar="S", help="Retry-After of a throttled answer")
    parser.add_argument("--latency", type=float, default=0, metavar="MS", help="delay of each answer")
    parser.add_argument("--user-data", type=Path, metavar="FILE", help="what user-data holds (raw bytes)")
    log = parser.add_mutually_exclusive_group()
    log.add_argument("--access-log", action="store_true", help="a line per request to stderr")
    log.add_argument("--quiet", action="store_true", help="no access log (the default)")


def run(args: argparse.Namespace) -> int:
    """Serves until SIGTERM or SIGINT: 0; 1 where it cannot listen or read a file; 2 for a value that the
    settings refuse."""
    try:
        settings = _settings(args)
    except OSError as error:
        return _complain(f"cannot read {args.user_data}: {error.strerror}", 1)
    except SettingsError as error:
        return _complain(str(error), 2)
    # Blocked before the first thread starts, so that `sigwait` alone gets them.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
    emulator = Emulator(
        settings, args.listen or [_DEFAULT_LISTEN], args.control, log=_log if args.access_log else None
    )
    try:
        with emulator:
            for address in emulator.addresses:
                sys.stdout.write(f"listening on http://{authority(address)}\n")
            if emulator.control_address is not None:
                sys.stdout.write(f"control on http://{authority(emulator.control_address)}\n")
            sys.stdout.flush()
            signal.sigwait(_STOP)
    except CannotListen as error:
        return _complain(str(error), 1)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return 0


def _settings(args: argparse.Namespace) -> Settings:
    settings = Settings(
        http_tokens=args.http_tokens,
        role=args.role,
        max_token_ttl=args.token_ttl_max,
        throttle=args.throttle,
        throttle_status=args.throttle_status,
        retry_after=args.retry_after,
        latency=args.latency / 1000,
    )
    if args.user_data is None:
        return settings
    return replace(settings, user_data=args.user_data.read_bytes().decode("utf-8", "surrogateescape"))


def _address(text: str) -> Address:
    host, colon, port = text.rpartition(":")
    try:
        address = ipaddress.ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
    except ValueError:
        address = None
    bracketed = host.startswith("[")
    if not colon or address is None or bracketed != (address.version == 6) or not _is_port(port):
        raise argparse.ArgumentTypeError(f"{text!r} is no H:P; such as 127.0.0.1:8200 or [::1]:0")
    return str(address), int(port)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535


def _rate(text: str) -> float:
    match = _RATE.fullmatch(text)
    if match is None or float(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no rate; such as 20/s")
    return float(match[1])


def _complain(sentence: str, code: int) -> int:
    sys.stderr.write(f"imds-proxy: {sentence}\n")
    return code


def _log(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
