"""Which client sent what was seen: requests and a look at the process, held against the catalogue. Pure.

A client is named where both agree: it is there, in a release that sends such requests. Where several could
have sent the same, none is named. Knows nothing of advice.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from imds_proxy.clients.catalogue import Catalogue, Tool
from imds_proxy.clients.evidence import Evidence, Found
from imds_proxy.clients.usage import Call, Usage
from imds_proxy.clients.versions import Version
from imds_proxy.protocol.session import Session

_PRODUCTS = ("go_main", "program", "script", "image")
_PRODUCT_TOKEN = re.compile(r"([A-Za-z][A-Za-z0-9_.-]{0,39})(?:/([0-9A-Za-z.+~_-]{1,40}))?(?![^ ])")


@dataclass(frozen=True, slots=True)
class Named:
    """A client. `tool` is None for one that the catalogue does not know: then `name` is what it calls
    itself. `through` is the library in a program that makes its calls."""

    name: str
    version: str | None
    where: str | None
    tool: Tool | None = None
    through: Named | None = None

    @property
    def release(self) -> Version | None:
        """The version, if it is known."""
        return Version.parse(self.version) if self.version else None


@dataclass(frozen=True, slots=True)
class Naming:
    """`sent`: the calls by the client that sent them; `choices`: calls that several clients could have sent,
    with these; `unnamed`: calls of which nothing is known."""

    sent: tuple[tuple[Named, tuple[Call, ...]], ...] = ()
    choices: tuple[tuple[Call, tuple[Named, ...]], ...] = ()
    unnamed: tuple[Call, ...] = ()


def name_clients(known: Catalogue, usage: Usage, evidence: Evidence) -> Naming:
    """The clients of a caller."""
    libraries = tuple(_libraries(known, evidence))
    products = tuple(_products(known, evidence, libraries))
    by_call = {call: _senders(call, known, usage, evidence, products, libraries) for call in usage.calls}
    certain: dict[Named, list[Call]] = {}
    for call, senders in by_call.items():
        if len(senders) == 1:
            certain.setdefault(senders[0], []).append(call)
    choices: list[tuple[Call, tuple[Named, ...]]] = []
    unnamed: list[Call] = []
    for call, senders in by_call.items():
        if len(senders) == 1:
            continue
        also = [one for one in senders if one in certain]
        if also:
            certain[also[0]].append(call)
        elif senders:
            choices.append((call, tuple(senders)))
        elif (plain := _plain(call, usage)) is not None:
            certain.setdefault(plain, []).append(call)
        else:
            unnamed.append(call)
    ordered = sorted(certain.items(), key=_weight)
    return Naming(tuple((one, tuple(calls)) for one, calls in ordered), tuple(choices), tuple(unnamed))


def _weight(item: tuple[Named, list[Call]]) -> tuple[int, int]:
    """What is in the catalogue before what is not, what reads credentials before what does not."""
    one = item[0]
    return one.tool is None, one.tool is not None and one.tool.kind != "credentials"


def _senders(
    call: Call,
    known: Catalogue,
    usage: Usage,
    evidence: Evidence,
    products: tuple[Named, ...],
    libraries: tuple[Named, ...],
) -> list[Named]:
    """The clients that may have sent it."""
    fitting = [one for one in products if one.tool and one.tool.fits(one.release, call.agent, call.path)]
    if fitting:
        return fitting[:1]  # a program is one product, by however many names it was found
    own = _by_agent(call, known, libraries)
    if own is not None:
        return [own]
    fitting = [one for one in libraries if _may_send(one, call, usage, evidence)]
    # Two spans of one tool, or copies of one package, are one answer where the version is the same.
    return list(dict.fromkeys(fitting))


def _by_agent(call: Call, known: Catalogue, libraries: tuple[Named, ...]) -> Named | None:
    if call.agent is None:
        return None
    for tool in known.tools:
        version = tool.version_in(call.agent)
        if version is not None:
            here = (one for one in libraries if one.tool is tool)
            where = next((one.where for one in here if one.release == Version.parse(version)), None)
            return Named(tool.name, version, where, tool)
    return None


def _may_send(one: Named, call: Call, usage: Usage, evidence: Evidence) -> bool:
    tool, release = one.tool, one.release
    if tool is None or not tool.fits(release, call.agent, call.path):
        return False
    variables = {one.name for one in evidence.settings}
    if tool.needs_variable is not None and tool.needs_variable not in variables:
        return False
    lists = tool.lists(release)
    if lists is not None:
        listed = any(other.lists_roles for other in usage.calls if other.agent == call.agent)
        if lists != listed:
            return False
    modern = tool.default_since is not None and (release is None or release >= tool.default_since)
    old = tool.default_since is None or release is None or release < tool.default_since
    if call.session is Session.FALLBACK:
        return modern
    turned_off = any(
        one.name == tool.turned_off_by and one.value in ("true", "True") for one in evidence.settings
    )
    return old or turned_off or call.session is Session.HARDENED


def _libraries(known: Catalogue, evidence: Evidence) -> Iterator[Named]:
    for found in evidence.found:
        if found.ecosystem not in (*_PRODUCTS, "package"):
            for tool in known.found_as(found.ecosystem, found.name):
                yield Named(tool.name, found.version, found.where, tool)


def _products(known: Catalogue, evidence: Evidence, libraries: tuple[Named, ...]) -> Iterator[Named]:
    for ecosystem in _PRODUCTS:
        for found in evidence.found:
            if found.ecosystem == ecosystem:
                for tool in known.found_as(found.ecosystem, found.name):
                    through = next(
                        (one for one in libraries if one.tool and one.tool.id == tool.through), None
                    )
                    yield Named(tool.name, _version(tool, found, evidence), found.where, tool, through)


def _version(tool: Tool, found: Found, evidence: Evidence) -> str | None:
    """The version of a program: its own word, the same package's by another way, or the package manager's."""
    if found.version is not None:
        return found.version
    same = (one.version for one in evidence.found if one.version and _is(tool, one))
    return next(same, None)


def _is(tool: Tool, found: Found) -> bool:
    names: Iterable[str] = getattr(tool.find, found.ecosystem, ())
    return found.ecosystem != "go" and found.name in names


def _plain(call: Call, usage: Usage) -> Named | None:
    """What sends requests of its own: named by what it calls itself, in the script that runs it."""
    match = _PRODUCT_TOKEN.match(call.agent or "")
    if match is None:
        return None
    where = usage.script or usage.shell_script or usage.executable
    return Named(match[1], match[2], where)


def is_command(one: Named, usage: Usage) -> bool:
    """Whether a client that the catalogue does not know is a command such as curl, not a program's code."""
    base = posixpath.basename(usage.executable or "")
    return one.tool is None and base.lower() == one.name.lower()
