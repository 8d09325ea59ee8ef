"""One typed, frozen configuration and its one loader: every error in one go, as `file:line: ...`.

The keys, their ranges and their documentation live here and nowhere else; knows nothing of who uses them.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from imds_proxy.config_account import UserName
from imds_proxy.config_document import MOST_ERRORS, ConfigError, ConfigErrors, read_document, refusal
from imds_proxy.config_file import FileRefused, read_text
from imds_proxy.config_intercept import Intercept, intercept_conflicts
from imds_proxy.config_pods import Pods
from imds_proxy.config_reader import KeyDoc, SectionReader, describe_section, key
from imds_proxy.config_rules import Policy, rule_conflicts
from imds_proxy.config_sections import (
    CONNECTING,
    Admin,
    Cache,
    Ledger,
    Limits,
    Log,
    LogFormat,
    OptionalPort,
    Upstream,
)
from imds_proxy.config_values import (
    Address,
    Count,
    Directory,
    HostValue,
    SocketAddress,
    Word,
    format_duration,
    parse_address,
    printable,
)

__all__ = [
    "DEFAULT_PATH",
    "Address",
    "Admin",
    "Attribution",
    "Cache",
    "Config",
    "ConfigError",
    "ConfigErrors",
    "Intercept",
    "KeyDoc",
    "Ledger",
    "Limits",
    "Log",
    "LogFormat",
    "Mode",
    "Pods",
    "Policy",
    "Provider",
    "Tokens",
    "Upstream",
    "describe",
    "load",
    "load_or_default",
    "override",
    "parse",
    "parse_address",
]

DEFAULT_PATH = Path("/etc/imds-proxy/config.yaml")
"""Read when no `-c` is given, if it exists."""

Provider = Literal["alibaba"]
Mode = Literal["upgrade", "enforce", "passthrough"]
Tokens = Literal["real", "sealed"]
Attribution = Literal["auto", "procfs", "ebpf"]


_LISTENING = SocketAddress(listening=True)


def _state_directory() -> Path:
    # systemd gives the directories of StateDirectory= separated by colons.
    return Path(os.environ.get("STATE_DIRECTORY", "").split(":")[0] or "/var/lib/imds-proxy")


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration; `Config()` is all defaults. Swapped whole, never changed."""

    provider: Provider = field(
        default="alibaba", metadata=key(Word(get_args(Provider)), "The cloud whose service this is.")
    )
    listen: tuple[Address, ...] = field(
        default=(Address("127.0.0.1", 8100),),
        metadata=key(_LISTENING, "Where callers connect to.", many=True, least=1),
    )
    upstream: Upstream = field(default=Upstream())
    mode: Mode = field(
        default="upgrade",
        metadata=key(
            Word(get_args(Mode)),
            "upgrade: normal mode is served; enforce: it is refused; passthrough: nothing is changed.",
        ),
    )
    hop_limit: int = field(
        default=1,
        metadata=key(
            Count(1, 255), "IP hop limit of answers; 1: none ever leaves by way of a router, as a host wants."
        ),
    )
    hosts: tuple[str, ...] = field(
        default=(),
        metadata=key(
            HostValue(), "Host values accepted besides the service's and the connection's.", many=True
        ),
    )
    policy: Policy = field(default=Policy())
    tokens: Tokens = field(
        default="real",
        metadata=key(
            Word(get_args(Tokens)), "Callers get tokens of the real service, or the proxy's own sealed ones."
        ),
    )
    state: Path = field(
        default_factory=_state_directory,
        metadata=key(Directory(), "Directory of token hashes and seal key; when unset $STATE_DIRECTORY."),
    )
    user: str = field(
        default="auto",
        metadata=key(
            UserName(),
            "Whom the daemon becomes when root starts it; auto: imds-proxy, where there is such a user.",
        ),
    )
    attribution: Attribution = field(
        default="auto",
        metadata=key(
            Word(get_args(Attribution)), "How callers are named; auto: ebpf where it can be had, else procfs."
        ),
    )
    workers: int = field(
        default=1,
        metadata=key(
            Count(1, 64),
            "1: the daemon alone answers; more: so many processes beside it, where one core is not enough.",
        ),
    )
    pods: Pods = field(default_factory=Pods)
    limits: Limits = field(default=Limits())
    cache: Cache = field(default=Cache())
    log: Log = field(default=Log())
    intercept: Intercept = field(default=Intercept())
    ledger: Ledger = field(default=Ledger())
    admin: Admin = field(default_factory=Admin)


def describe() -> tuple[KeyDoc, ...]:
    """Every key there is, in the order of the file."""
    return describe_section(Config())


def load(path: Path, check_owner: bool = True) -> Config:
    """The configuration in a file.

    Raises ConfigErrors, with every error in the file, or the one reason why it is not read. With
    `check_owner`, root refuses a path that others could change (ATTACKS row 33).
    """
    name = printable(str(path))
    try:
        text = read_text(path, check_owner=check_owner)
    except FileRefused as refused:
        raise ConfigErrors((ConfigError(name, 0, printable(str(refused))),)) from None
    return parse(text, name)


def load_or_default(path: Path | None) -> Config:
    """The configuration that `imds-proxy run` starts with: of the file that is named (`-c`), else that at
    DEFAULT_PATH, else, where there is no such file, the defaults. Raises ConfigErrors."""
    chosen = path or (DEFAULT_PATH if DEFAULT_PATH.exists() else None)
    return load(chosen) if chosen else Config()


def parse(text: str, name: str) -> Config:
    """The configuration in a YAML text; `name` stands for the file in errors. Raises ConfigErrors."""
    root, errors = read_document(text, name)
    reader = SectionReader(name, Config(), list(errors))
    config: Config = Config() if root is None else reader.read(root)
    for keys, sentence in _conflicts(config):
        if reader.failed.isdisjoint(keys):
            line = max((reader.lines[key] for key in keys if key in reader.lines), default=0)
            reader.errors.append(ConfigError(name, line, sentence))
        if len(reader.errors) > MOST_ERRORS:
            break
    if reader.errors:
        raise refusal(reader.errors)
    return config


def override(
    config: Config,
    listen: Sequence[str] | None = None,
    upstream: str | None = None,
    mode: Mode | None = None,
    admin: str | None = None,
) -> Config:
    """The configuration with what the command line says in place of it (None: says nothing).

    Addresses are texts, `H:P` or `[v6]:P`. Raises ValueError, with a sentence for the user, where one is
    wrong or the result contradicts itself.
    """
    changed = config
    if listen:
        addresses = tuple(_LISTENING.read(text, "str") for text in listen)
        if repeated := [one for one in addresses if one.port and addresses.count(one) > 1]:
            raise ValueError(f"{repeated[0]} is given twice; once is allowed")
        changed = replace(changed, listen=addresses)
    if upstream is not None:
        address = CONNECTING.read(upstream, "str")
        changed = replace(changed, upstream=replace(changed.upstream, address=address))
    if mode is not None:
        changed = replace(changed, mode=mode)
    if admin is not None:
        changed = replace(changed, admin=replace(changed.admin, metrics=OptionalPort().read(admin, "str")))
    sentences = [sentence for _, sentence in _conflicts(changed)]
    if sentences:
        raise ValueError("; ".join(sentences))
    return changed


def _conflicts(config: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    """What contradicts what: the keys, and a sentence."""
    upstream, limits = config.upstream, config.limits
    if upstream.connect_timeout > upstream.deadline:
        yield (
            ("upstream.connect_timeout", "upstream.deadline"),
            f"upstream.connect_timeout ({format_duration(upstream.connect_timeout)}) is more than "
            f"upstream.deadline ({format_duration(upstream.deadline)}); at most as long is allowed",
        )
    if limits.connections_per_caller > limits.connections:
        yield (
            ("limits.connections_per_caller", "limits.connections"),
            f"limits.connections_per_caller ({limits.connections_per_caller}) is more than "
            f"limits.connections ({limits.connections}); at most as many are allowed",
        )
    if limits.target >= limits.head:
        yield (
            ("limits.target", "limits.head"),
            f"limits.target ({limits.target} bytes) does not fit into limits.head ({limits.head} bytes)",
        )
    if config.workers > 1 and (config.pods.networks or config.pods.names != "none"):
        yield (
            ("workers", "pods.networks", "pods.names"),
            f"workers ({config.workers}) cannot name callers in pods yet: with pods.networks or pods.names "
            "only 1 is allowed",
        )
    yield from rule_conflicts(config.policy)
    yield from intercept_conflicts(config.intercept, config.listen, upstream.address)
    for address in config.listen:
        if _meets(address, upstream.address):
            yield (
                ("listen", "upstream.address"),
                f"listen {address} is where upstream.address ({upstream.address}) leads: a loop; "
                "one of the two must be another address or port",
            )


def _meets(listening: Address, target: Address) -> bool:
    """Whether a connection to `target` would come in at `listening`."""
    if listening.port != target.port:
        return False
    ours, theirs = ipaddress.ip_address(listening.host), ipaddress.ip_address(target.host)
    # A wildcard meets every address of this machine, and loopback is the one that surely is.
    wildcard = ours.is_unspecified and theirs.is_loopback and ours.version in (6, theirs.version)
    return ours == theirs or wildcard
