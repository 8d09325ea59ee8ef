"""The catalogue of known clients: tools.yaml as typed values, read when it is first asked for.

Knows nothing of processes; every key of the file is documented and checked here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import yaml

from imds_proxy.clients.usage import path_shape
from imds_proxy.clients.versions import Version

KINDS = ("credentials", "metadata", "boot")
STATUSES = ("v1_only", "v2_default", "v2_only", "mixed", "unknown")
CONFIDENCES = ("source", "documented", "measured", "inferred", "unknown")
NO_AGENT = "-"
_SHAPES = ("role", "roles", "Ram/role", "Ram/roles", "item")
_AGENT_VERSION = r"([0-9A-Za-z.+~_-]{1,64})"


@dataclass(frozen=True, slots=True)
class Span:
    """Releases from `since` (None: the first) to before `before` (None: no end)."""

    since: Version | None = None
    before: Version | None = None

    def holds(self, version: Version | None) -> bool:
        """Whether a release lies in it; one that is not known may."""
        if version is None:
            return True
        return not (self.since and version < self.since) and not (self.before and version >= self.before)


@dataclass(frozen=True, slots=True)
class Shape:
    """What the calls of some releases look like: globs of the User-Agent (`-`: none), shapes of the path
    (`role`: credentials of a role; `roles`: the list of roles; the same below `Ram/`, as some spell it;
    `item`: other meta-data; or a glob that begins with a slash), and whether the client asks for the list
    of roles first (None: it may)."""

    span: Span
    agents: tuple[str, ...]
    paths: tuple[str, ...]
    lists: bool | None = None

    def fits(self, agent: str | None, path: str) -> bool:
        """Whether a request may be one of these."""
        name = NO_AGENT if agent is None else agent
        shape = path_shape(path)
        return any(
            fnmatchcase(name, glob) for glob in self.agents if (glob == NO_AGENT) == (agent is None)
        ) and (any(fnmatchcase(path, one) if one.startswith("/") else one == shape for one in self.paths))


@dataclass(frozen=True, slots=True)
class DisableV1:
    """How normal mode is forbidden: by an environment variable (to be `true`), by a parameter in the code;
    neither means that it cannot be."""

    env: str | None = None
    param: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Find:
    """By what a tool is found: names of packages by ecosystem; `go_main`, the main module of an executable;
    `program`, globs of an executable's name, or of its path where they begin with a slash; `script`, the
    name of what an interpreter runs; `package`, of a package manager's package; `file`, a JSON file with its
    version; `image`, how a container image's name ends. `versioned_directory`: the executable stands in a
    directory that is named for the version."""

    pypi: tuple[str, ...] = ()
    npm: tuple[str, ...] = ()
    go: tuple[str, ...] = ()
    go_main: tuple[str, ...] = ()
    maven: tuple[str, ...] = ()
    program: tuple[str, ...] = ()
    script: tuple[str, ...] = ()
    package: tuple[str, ...] = ()
    file: tuple[str, ...] = ()
    image: tuple[str, ...] = ()
    versioned_directory: bool = False


@dataclass(frozen=True, slots=True)
class Tool:
    """One client. `supports_since`: the first release that can speak hardened mode; `default_since`: the
    first that does so unasked; both None: no release does. `opt_in`: how those between are told to.
    `upgrade_to`: what to advise. `instead`: what to do where no release helps. `turned_off_by`: a variable
    that turns hardened mode off. `ignores_no_proxy`: it sends its calls to HTTP_PROXY whatever NO_PROXY
    says. `reads_misspelt`: releases that read the variable without its last letter.
    `repeats_untokened_since`: from here a refused call with a token is repeated without. `part`: which of
    several code paths of one module. `through`: the library in it that makes the calls.
    `needs_variable`: without this variable it makes none.
    """

    id: str
    name: str
    kind: str
    status: str
    requests: tuple[Shape, ...]
    source: tuple[str, ...]
    confidence: str
    checked: str
    find: Find = Find()
    agent: str | None = None
    part: str | None = None
    through: str | None = None
    needs_variable: str | None = None
    supports_since: Version | None = None
    default_since: Version | None = None
    opt_in: str | None = None
    upgrade_to: Version | None = None
    disable_v1: DisableV1 | None = None
    reads_misspelt: Span | None = None
    repeats_untokened_since: Version | None = None
    instead: str | None = None
    turned_off_by: str | None = None
    ignores_no_proxy: bool = False
    note: str | None = None

    def version_in(self, agent: str) -> str | None:
        """The version that a User-Agent names, if it is this tool's own."""
        if self.agent is None:
            return None
        match = _agent_pattern(self.agent).fullmatch(agent)
        return match[1] if match else None

    def fits(self, version: Version | None, agent: str | None, path: str) -> bool:
        """Whether that release may send such a request."""
        return any(shape.span.holds(version) and shape.fits(agent, path) for shape in self.requests)

    def lists(self, version: Version | None) -> bool | None:
        """Whether that release asks for the list of roles before the first; None where it may or not."""
        found = {shape.lists for shape in self.requests if shape.span.holds(version)}
        return found.pop() if len(found) == 1 else None


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All tools, and those of one ecosystem by the names they are found under."""

    tools: tuple[Tool, ...]
    _by: Mapping[str, Mapping[str, tuple[Tool, ...]]] = field(repr=False)

    def names(self, ecosystem: str) -> frozenset[str]:
        """The names that are looked for in one ecosystem (a field of Find)."""
        return frozenset(self._by[ecosystem])

    def found_as(self, ecosystem: str, name: str) -> tuple[Tool, ...]:
        """The tools that this package is, or holds."""
        return self._by[ecosystem].get(name, ())

    def get(self, tool: str) -> Tool:
        """The tool of an id. Raises KeyError."""
        return next((one for one in self.tools if one.id == tool), None) or _missing(tool)


@lru_cache(maxsize=1)
def catalogue() -> Catalogue:
    """The catalogue that the package ships; read at the first call (tens of milliseconds: for a thread)."""
    # By its path: importlib.resources takes 8 ms to import, and every start of the daemon would pay that.
    text = Path(__file__).with_name("tools.yaml").read_text(encoding="utf-8")
    return parse_catalogue(yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))  # noqa: S506


def parse_catalogue(document: Any) -> Catalogue:
    """Raises ValueError that names the entry and what is wrong with it."""
    if not isinstance(document, dict) or document.keys() != {"tools", "ack_components"}:
        raise ValueError("the document is a mapping of `tools` and `ack_components`")
    tools = (*map(_tool, document["tools"]), *_components(document["ack_components"]))
    ids = [tool.id for tool in tools]
    for one in ids:
        if ids.count(one) > 1:
            raise ValueError(f"{one}: stands there twice")
    for tool in tools:
        if tool.through is not None and tool.through not in ids:
            raise ValueError(f"{tool.id}: through: no such tool")
    by: dict[str, dict[str, tuple[Tool, ...]]] = {}
    for entry in fields(Find):
        names = by.setdefault(entry.name, {})
        for tool in tools:
            value = getattr(tool.find, entry.name)
            for name in value if isinstance(value, tuple) else ():
                names[name] = (*names.get(name, ()), tool)
    return Catalogue(tools, by)


@lru_cache(maxsize=64)
def _agent_pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"(\*|\{version\})", template)
    table = {"*": r"[^\n]{0,120}?", "{version}": _AGENT_VERSION}
    return re.compile("".join(table.get(part) or re.escape(part) for part in parts))


def _missing(tool: str) -> Tool:
    raise KeyError(tool)


def _tool(entry: Any) -> Tool:
    name = entry.get("id", "?") if isinstance(entry, dict) else "?"
    try:
        return _read_tool(entry)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from None


def _read_tool(entry: dict[str, Any]) -> Tool:
    values: dict[str, Any] = dict(entry)
    for key, allowed in (("kind", KINDS), ("status", STATUSES), ("confidence", CONFIDENCES)):
        if values[key] not in allowed:
            raise ValueError(f"{key}: {values[key]!r} is none of {', '.join(allowed)}")
    for key in ("supports_since", "default_since", "upgrade_to", "repeats_untokened_since"):
        if key in values:
            values[key] = _version(values[key], key)
    values["requests"] = tuple(map(_shape, values["requests"]))
    values["source"] = _texts(values["source"])
    if any(not one.startswith("https://") for one in values["source"]) or not values["source"]:
        raise ValueError("source: one link or more")
    if "find" in values:
        found = {key: one if isinstance(one, bool) else _texts(one) for key, one in values["find"].items()}
        values["find"] = Find(**cast(dict[str, Any], found))
    if "disable_v1" in values:
        values["disable_v1"] = DisableV1(**values["disable_v1"])
    if "reads_misspelt" in values:
        values["reads_misspelt"] = _span(values["reads_misspelt"])
    tool = Tool(**values)
    _check(tool)
    return tool


def _check(tool: Tool) -> None:
    if tool.find == Find() and tool.agent is None:
        raise ValueError("neither `find` nor `agent`: nothing could find it")
    if tool.status in ("v2_default", "v2_only") and (tool.upgrade_to or tool.supports_since) is None:
        raise ValueError("supports_since: from which release on?")
    if tool.status == "v2_default" and tool.disable_v1 is None:
        raise ValueError("disable_v1: how is normal mode forbidden, or that it cannot be")
    if tool.status in ("v1_only", "mixed") and tool.instead is None:
        raise ValueError("instead: what is to be done where no release helps")
    if tool.status == "unknown" and tool.note is None:
        raise ValueError("note: what is known of it")


def _components(entry: Mapping[str, Any]) -> Iterator[Tool]:
    for name, minimum in entry["minimum"].items():
        since = None if minimum is None else _version(minimum, name)
        yield Tool(
            id=f"ack-{name}",
            name=name,
            kind="metadata",
            status="v2_default" if since else "v1_only",
            requests=(Shape(Span(), ("*", NO_AGENT), ("/*",)),),
            source=(entry["source"],),
            confidence="documented",
            checked=entry["checked"],
            find=Find(image=(f"acs/{name}",)),
            supports_since=since,
            default_since=since,
            upgrade_to=since,
            disable_v1=DisableV1() if since else None,
            instead=None if since else "migrate to csi-plugin: no release of it speaks hardened mode",
        )


def _shape(entry: Mapping[str, Any]) -> Shape:
    values = dict(entry)
    paths, agents = _texts(values.pop("paths")), _texts(values.pop("agents"))
    for path in paths:
        if not path.startswith("/") and path not in _SHAPES:
            raise ValueError(f"paths: {path!r} is none of {', '.join(_SHAPES)}, and no glob of a path")
    span = _span({key: values.pop(key) for key in ("since", "before") if key in values})
    return Shape(span, agents, paths, **values)


def _span(entry: Mapping[str, Any]) -> Span:
    return Span(**{key: _version(value, key) for key, value in entry.items()})


def _version(text: Any, key: str) -> Version:
    version = Version.parse(text) if isinstance(text, str) else None
    if version is None:
        raise ValueError(f"{key}: {text!r} is no version (in quotes)")
    return version


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError(f"{value!r} is no list of texts")
    return tuple(value)
