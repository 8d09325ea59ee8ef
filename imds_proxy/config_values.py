"""The kinds of value a configuration may hold, read from text and checked against a range.

Knows no key, no file and no YAML beyond the tag that a scalar was given.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

_DURATION = re.compile(r"([0-9]{1,9})(ms|s|m|h|d)", re.ASCII)
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"([0-9]{1,12})(B|KiB|MiB)", re.ASCII)
_SIZE_UNITS = {"B": 1, "KiB": 1024, "MiB": 1024 * 1024}
_DIGITS = re.compile(r"[0-9]{1,12}", re.ASCII)
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_HOST_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_]([a-z0-9_-]{0,62}))*", re.ASCII)
# Escapes only of what a canonical path keeps encoded.
_SEGMENT = re.compile(
    r"(?:[A-Za-z0-9._~!$&'()+,=:@-]|%(?:20|22|3c|3e|5b|5d|5e|60|7b|7c|7d))+", re.ASCII | re.IGNORECASE
)
_VERSION = re.compile(r"latest|[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]+\.[0-9]+", re.ASCII)
_LONGEST_QUOTE = 60


def printable(text: str) -> str:
    """The text with everything that is not printable escaped, for terminals and logs."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def quoted(text: str) -> str:
    """The text as an error message quotes it: escaped and bounded."""
    cut = text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "..."
    return f"'{printable(cut)}'"


def format_duration(seconds: float) -> str:
    """`21600` as `6h`, `0.9` as `900ms`: the largest unit that leaves a whole number."""
    milliseconds = round(seconds * 1000)
    if milliseconds == 0:
        return "0s"
    for unit in ("d", "h", "m", "s"):
        size = round(_DURATION_UNITS[unit] * 1000)
        if milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"


def format_size(size: int) -> str:
    """`16384` as `16KiB`: the largest unit that leaves a whole number."""
    for unit in ("MiB", "KiB"):
        if size and size % _SIZE_UNITS[unit] == 0:
            return f"{size // _SIZE_UNITS[unit]}{unit}"
    return f"{size}B"


@dataclass(frozen=True, slots=True)
class Address:
    """An IP address in its normal text form, and a TCP port (0: any free one)."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


_ADDRESS_FORM = "an IP address and a port, like 127.0.0.1:8100 or [::1]:8100"


def parse_address(text: str) -> Address:
    """An address from `H:P` or `[v6]:P`. Raises ValueError with a sentence for the user."""
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]:")
        if not bracket:
            raise ValueError(f"{quoted(text)} has no port; write {_ADDRESS_FORM}")
    else:
        host, colon, port = text.rpartition(":")
        if not colon:
            raise ValueError(f"{quoted(text)} has no port; write {_ADDRESS_FORM}")
        if ":" in host:
            raise ValueError(f"{quoted(text)} has an IPv6 address without brackets; write {_ADDRESS_FORM}")
    if not _PORT.fullmatch(port) or int(port) > 65535:
        raise ValueError(f"{quoted(text)} has no valid port; a port is a number from 0 to 65535")
    try:
        # A scope (fe80::1%eth0) names an interface of one machine: a configuration is for many.
        ip = ipaddress.IPv6Address(host) if text.startswith("[") else ipaddress.IPv4Address(host)
    except ValueError:
        raise ValueError(f"{quoted(text)} has no IP address; write {_ADDRESS_FORM}") from None
    if isinstance(ip, ipaddress.IPv6Address) and (ip.ipv4_mapped is not None or ip.scope_id is not None):
        raise ValueError(f"{quoted(text)} has a mapped or scoped address; write a plain IPv4 or IPv6 one")
    return Address(str(ip), int(port))


class Kind(Protocol):
    """How one kind of value is read. `allowed` is a short phrase for messages and documentation."""

    @property
    def allowed(self) -> str:
        """What may be written, range included."""

    def read(self, text: str, tag: str) -> object:
        """The value of a scalar that YAML tagged `tag` (`str`, `int`, `bool`, ...).

        Raises ValueError: what is wrong; what is allowed.
        """

    def show(self, value: object) -> str:
        """The value as it would be written."""


@dataclass(frozen=True, slots=True)
class Duration:
    """Seconds as float, from `minimum` to `maximum`; written as a whole number and a unit."""

    minimum: float
    maximum: float

    @property
    def allowed(self) -> str:
        """What may be written."""
        return f"{format_duration(self.minimum)} to {format_duration(self.maximum)}"

    def read(self, text: str, tag: str) -> float:
        """Raises ValueError."""
        if _DIGITS.fullmatch(text):
            number = int(text)
            raise ValueError(f"a duration needs a unit: {number}ms, {number}s; allowed is {self.allowed}")
        match = _DURATION.fullmatch(text)
        if match is None:
            raise ValueError(
                f"{quoted(text)} is not a duration; write a whole number and a unit (ms, s, m, h, d), "
                f"{self.allowed}"
            )
        # Milliseconds are whole, so that 900ms is exactly the float 0.9.
        seconds = int(match[1]) / 1000 if match[2] == "ms" else int(match[1]) * _DURATION_UNITS[match[2]]
        if not self.minimum <= seconds <= self.maximum:
            raise ValueError(f"{text} is out of range; allowed is {self.allowed}")
        return seconds

    def show(self, value: object) -> str:
        """The value as it would be written."""
        return format_duration(float(str(value)))


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes as int, from `minimum` to `maximum`; written as a whole number and a unit."""

    minimum: int
    maximum: int

    @property
    def allowed(self) -> str:
        """What may be written."""
        return f"{format_size(self.minimum)} to {format_size(self.maximum)}"

    def read(self, text: str, tag: str) -> int:
        """Raises ValueError."""
        if _DIGITS.fullmatch(text):
            number = int(text)
            raise ValueError(f"a size needs a unit: {number}B, {number}KiB; allowed is {self.allowed}")
        match = _SIZE.fullmatch(text)
        if match is None:
            raise ValueError(
                f"{quoted(text)} is not a size; write a whole number and a unit (B, KiB, MiB), {self.allowed}"
            )
        size = int(match[1]) * _SIZE_UNITS[match[2]]
        if not self.minimum <= size <= self.maximum:
            raise ValueError(f"{text} is out of range; allowed is {self.allowed}")
        return size

    def show(self, value: object) -> str:
        """The value as it would be written."""
        return format_size(int(str(value)))


@dataclass(frozen=True, slots=True)
class Count:
    """A whole number from `minimum` to `maximum`, without a unit."""

    minimum: int
    maximum: int

    @property
    def allowed(self) -> str:
        """What may be written."""
        return f"a whole number from {self.minimum} to {self.maximum}"

    def read(self, text: str, tag: str) -> int:
        """Raises ValueError. A leading zero is octal in YAML, so it is refused."""
        if tag != "int" or not _DIGITS.fullmatch(text) or (text[0] == "0" and text != "0"):
            raise ValueError(f"{quoted(text)} is not a whole number; allowed is {self.allowed}")
        number = int(text)
        if not self.minimum <= number <= self.maximum:
            raise ValueError(f"{text} is out of range; allowed is {self.allowed}")
        return number

    def show(self, value: object) -> str:
        """The value as it would be written."""
        return str(value)


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a closed list."""

    words: tuple[str, ...]

    @property
    def allowed(self) -> str:
        """What may be written."""
        return " | ".join(self.words)

    def read(self, text: str, tag: str) -> str:
        """Raises ValueError."""
        if tag == "bool":
            raise ValueError(f"{quoted(text)} is a boolean in YAML, not a word; allowed is {self.allowed}")
        if text in self.words:
            return text
        near = difflib.get_close_matches(text.lower(), self.words, n=1)
        hint = f"did you mean {quoted(near[0])}? " if near else ""
        raise ValueError(f"{quoted(text)} is not known; {hint}allowed is {self.allowed}")

    def show(self, value: object) -> str:
        """The value as it would be written."""
        return str(value)


@dataclass(frozen=True, slots=True)
class SocketAddress:
    """An `Address`. `listening` ones may be a wildcard and have port 0, those to connect to may not."""

    listening: bool

    @property
    def allowed(self) -> str:
        """What may be written."""
        return _ADDRESS_FORM + (" (port 0: any free one)" if self.listening else "")

    def read(self, text: str, tag: str) -> Address:
        """Raises ValueError."""
        address = parse_address(text)
        ip = ipaddress.ip_address(address.host)
        if ip.is_multicast:
            raise ValueError(f"{quoted(text)} is a multicast address; write {self.allowed}")
        if not self.listening and (address.port == 0 or ip.is_unspecified):
            raise ValueError(f"{quoted(text)} cannot be connected to; write {self.allowed}")
        return address

    def show(self, value: object) -> str:
        """The value as it would be written."""
        return str(value)


class HostValue:
    """A value of the Host header, in lower case: a name or an IP address, with a port or without."""

    @property
    def allowed(self) -> str:
        """What may be written."""
        return "a host name or IP address, with a port or without"

    def read(self, text: str, tag: str) -> str:
        """Raises ValueError."""
        value = text.lower()
        host, colon, port = value.rpartition(":")
        if not colon or value.endswith("]"):
            host, port = value, ""
        elif not _PORT.fullmatch(port) or not 1 <= int(port) <= 65535:
            raise ValueError(f"{quoted(text)} has no valid port; write {self.allowed}")
        if host.startswith("[") and host.endswith("]"):
            try:
                ipaddress.IPv6Address(host[1:-1])
            except ValueError:
                raise ValueError(f"{quoted(text)} is no host; write {self.allowed}") from None
        elif len(host) > 253 or not _HOST_NAME.fullmatch(host):
            raise ValueError(f"{quoted(text)} is no host; write {self.allowed}")
        return value

    def show(self, value: object) -> str:
        """The value as it would be written."""
        return str(value)


class ItemPattern:
    """A pattern over item paths, below any version: `a/b`, `a/*/c`, `a/**`."""

    @property
    def allowed(self) -> str:
        """What may be written."""
        return "a path without its version, like meta-data/ram/** (`*`: one segment, `**`: all below)"

    def read(self, text: str, tag: str) -> str:
        """Raises ValueError."""
        segments = text.split("/")
        if "" in segments:
            raise ValueError(f"{quoted(text)} has an empty segment; write {self.allowed}")
        if _VERSION.fullmatch(segments[0].lower()):
            raise ValueError(
                f"{quoted(text)} begins with a version; leave {quoted(segments[0] + '/')} out: a pattern "
                "covers every version"
            )
        if "." in segments or ".." in segments:
            raise ValueError(f"{quoted(text)} has a dot segment; write {self.allowed}")
        if "**" in segments[:-1] or segments == ["**"]:
            raise ValueError(f"{quoted(text)} has `**` elsewhere than at its end; write {self.allowed}")
        for segment in segments:
            if segment in {"*", "**"}:
                continue
            if "*" in segment:
                raise ValueError(f"{quoted(text)} has `*` as a part of a segment; write {self.allowed}")
            if not _SEGMENT.fullmatch(segment):
                raise ValueError(f"{quoted(text)} has a character no path has; write {self.allowed}")
        return text

    def show(self, value: object) -> str:
        """The value as it would be written."""
        return str(value)


@dataclass(frozen=True, slots=True)
class Directory:
    """An absolute path in normal form, or one below the directory that the key `base` has."""

    base: str | None = None

    @property
    def allowed(self) -> str:
        """What may be written."""
        below = f"; a relative one is below `{self.base}`" if self.base else ""
        return f"{'a' if below else 'an absolute'} path without . and ..{below}"

    def read(self, text: str, tag: str) -> Path:
        """Raises ValueError."""
        dots = {".", ".."} & set(PurePosixPath(text).parts + tuple(text.split("/")))
        if dots or not (self.base or text.startswith("/")):
            raise ValueError(f"{quoted(text)} is not {self.allowed}")
        return Path(text)

    def show(self, value: object) -> str:
        """The value as it would be written."""
        return str(value)
