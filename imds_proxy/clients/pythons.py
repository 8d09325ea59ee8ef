"""Python distributions that a process can import, by the metadata in the directories of its `sys.path`.

Nothing is executed and nothing imported: the directories follow from the command line, the executable, the
virtual environment's `pyvenv.cfg`, a few variables and what is mapped. Knows no particular package.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from imds_proxy.clients.evidence import Found, shown
from imds_proxy.clients.rooted import Rooted
from imds_proxy.clients.versions import Version

_PYTHON = re.compile(r"(?:python|pypy)([0-9](?:\.[0-9]{1,2})?)?")
_METADATA = re.compile(r"(.+?)(?:-([^-]+)(?:-py[0-9.]+)?)?\.(dist-info|egg-info|egg)")
_HEADER = re.compile(r"^(Name|Version):[ \t]*(\S+)", re.M)
_SITE = re.compile(r"(/.*?/(?:site|dist)-packages)/")
_MAX_DIRECTORIES, _MAX_PTH = 48, 16
_HEAD = 1 << 14  # bytes of metadata: the headers that count stand at its beginning


@dataclass(frozen=True, slots=True)
class Interpreter:
    """How a Python was started, as the process sees the paths. `command` is the first word of its command
    line, `variables` those of VIRTUAL_ENV, PYTHONPATH, PYTHONHOME and HOME that are set."""

    executable: str
    command: str
    directory: str | None
    script: str | None
    variables: Mapping[str, str]
    mapped: Sequence[str] = ()


def is_python(executable: str | None) -> bool:
    """Whether an executable's name is a Python's."""
    return executable is not None and _PYTHON.fullmatch(posixpath.basename(executable)) is not None


def distributions(rooted: Rooted, python: Interpreter, names: frozenset[str]) -> Iterator[Found]:
    """The installed ones among `names` (in their normal form), the first of a name where Python would find
    it first. Raises Exhausted."""
    seen: set[str] = set()
    for place in _with_pth(rooted, _search_path(rooted, python)):
        for found in _in_directory(rooted, place, names):
            if found.name not in seen:
                seen.add(found.name)
                yield found


def normal_name(name: str) -> str:
    """The form in which names of distributions are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _search_path(rooted: Rooted, python: Interpreter) -> Iterable[str]:
    """The directories in the order of sys.path, as far as they can be told."""
    places: dict[str, None] = {}
    for path in (posixpath.dirname(python.script) if python.script else None, python.directory):
        if path:
            places[path] = None
    for path in python.variables.get("PYTHONPATH", "").split(":"):
        if path.startswith("/"):
            places[path] = None
    environment, isolated = _environment(rooted, python)
    for prefix in (environment, *(() if isolated else _system_prefixes(python))):
        if prefix is not None:
            places.update(dict.fromkeys(_site_directories(rooted, prefix)))
    for path in python.mapped:
        match = _SITE.match(path)
        if match:
            places[match[1]] = None
    return list(places)[:_MAX_DIRECTORIES]


def _environment(rooted: Rooted, python: Interpreter) -> tuple[str | None, bool]:
    """The prefix of the virtual environment, if it is one, and whether the system's packages are hidden."""
    candidates = []
    if python.command.startswith("/"):
        candidates.append(posixpath.dirname(posixpath.dirname(python.command)))
    elif "/" in python.command and python.directory:
        path = posixpath.normpath(posixpath.join(python.directory, python.command))
        candidates.append(posixpath.dirname(posixpath.dirname(path)))
    elif "VIRTUAL_ENV" in python.variables:  # found on PATH, which an activated environment leads
        candidates.append(python.variables["VIRTUAL_ENV"])
    for prefix in candidates:
        settings = rooted.text(posixpath.join(prefix, "pyvenv.cfg"), 4096)
        if settings is not None:
            shared = re.search(r"^include-system-site-packages\s*=\s*true\s*$", settings, re.M | re.I)
            return prefix, shared is None
    return None, False


def _system_prefixes(python: Interpreter) -> Iterator[str]:
    yield python.variables.get("PYTHONHOME") or posixpath.dirname(posixpath.dirname(python.executable))
    yield "/usr/local"
    yield "/usr"
    home = python.variables.get("HOME", "")
    if home.startswith("/"):
        yield posixpath.join(home, ".local")


def _site_directories(rooted: Rooted, prefix: str) -> Iterator[str]:
    for library in ("lib", "lib64"):
        base = posixpath.join(prefix, library)
        for name in sorted(rooted.names(base)):
            if re.fullmatch(r"(?:python|pypy)[0-9](?:\.[0-9]{1,2})?", name):
                for kind in ("site-packages", "dist-packages"):
                    yield posixpath.join(base, name, kind)


def _with_pth(rooted: Rooted, places: Iterable[str]) -> Iterator[str]:
    """The directories, each followed by those that its .pth files add."""
    seen: set[str] = set()
    for place in places:
        if place in seen:
            continue
        seen.add(place)
        yield place
        if not place.endswith("-packages"):
            continue
        files = [name for name in rooted.names(place) if name.endswith(".pth")][:_MAX_PTH]
        for name in files:
            for line in (rooted.text(posixpath.join(place, name), 4096) or "").splitlines():
                added = posixpath.normpath(posixpath.join(place, line.strip()))
                if line.strip() and not line.startswith(("#", "import ")) and added not in seen:
                    seen.add(added)
                    yield added


def _in_directory(rooted: Rooted, place: str, names: frozenset[str]) -> Iterator[Found]:
    for entry in rooted.names(place):
        match = _METADATA.fullmatch(entry)
        if match is None or normal_name(match[1]) not in names:
            continue
        name, version = normal_name(match[1]), match[2]
        text = _metadata(rooted, posixpath.join(place, entry), match[3])
        headers = dict(_HEADER.findall(text or ""))
        if "Name" in headers and normal_name(headers["Name"]) != name:
            continue
        version = headers.get("Version", version)
        yield Found(
            "pypi", name, version if version and Version.parse(version) else None, _shown_place(place)
        )


def _metadata(rooted: Rooted, path: str, kind: str) -> str | None:
    if kind == "dist-info":
        return rooted.text(f"{path}/METADATA", _HEAD)
    if kind == "egg":
        return rooted.text(f"{path}/EGG-INFO/PKG-INFO", _HEAD)
    # An old setuptools leaves a directory, distutils a file.
    return rooted.text(f"{path}/PKG-INFO", _HEAD) or rooted.text(path, _HEAD)


def _shown_place(place: str) -> str:
    """What a developer calls it: the environment's directory, where it is one."""
    match = re.fullmatch(r"(/.+)/lib(?:64)?/(?:python|pypy)[0-9.]+/site-packages", place)
    return shown(match[1] if match and match[1] not in ("/usr", "/usr/local") else place)
