"""One look at a process: all readers together, within one budget. For a worker thread.

Decides what is worth to be read for which kind of program; knows nothing of advice.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator

from imds_proxy.clients.catalogue import Catalogue
from imds_proxy.clients.evidence import Evidence, Found
from imds_proxy.clients.gobuild import modules
from imds_proxy.clients.jars import libraries
from imds_proxy.clients.nodes import node_packages
from imds_proxy.clients.packages import machine_rpms, system_packages
from imds_proxy.clients.programs import image_version, programs
from imds_proxy.clients.pythons import Interpreter, distributions, is_python
from imds_proxy.clients.rooted import Budget, Exhausted, Rooted, reopen
from imds_proxy.clients.sight import Sight
from imds_proxy.clients.variables import places_of, settings_of

_MAX_FOUND = 32
_NODE = ("node", "nodejs", "electron", "bun")
_GONE = "the process ended before it could be looked at"
_NO_OPENAT2 = "its files cannot be opened below its own root: openat2 is missing (Linux 5.6) or refused"
_EXHAUSTED = "the look took too long or had too much to read"


def look(
    sight: Sight,
    known: Catalogue,
    script: str | None,
    image: str | None,
    budget: Budget | None = None,
    command: str | None = None,
) -> Evidence:
    """What is installed for the process that `sight` holds. `script` is what it runs, as a path of its own,
    `command` the first word of its command line, for the case that it has ended.

    Never raises: what could not be read is `missing`.
    """
    if sight.root is None:
        return Evidence(missing=_GONE)
    rooted = Rooted(sight.root, budget or Budget())
    environ = sight.environ()
    missing = None if environ or sight.cmdline() else _GONE
    found: dict[Found, None] = {}
    try:
        if not rooted.is_directory("/"):
            missing = _NO_OPENAT2
        for one in _all(sight, rooted, known, script, image, environ, command):
            found[one] = None
            if len(found) >= _MAX_FOUND:
                break
    except Exhausted:
        missing = _EXHAUSTED
    return Evidence(tuple(found), settings_of(environ), missing)


def _all(
    sight: Sight,
    rooted: Rooted,
    known: Catalogue,
    script: str | None,
    image: str | None,
    environ: bytes,
    command: str | None,
) -> Iterator[Found]:
    by_name = list(programs(rooted, sight.executable_path, script, known))
    yield from by_name
    if image is not None:
        yield from image_version(image, known)
    if is_python(sight.executable_path):
        yield from _python(sight, rooted, known, script, environ, command)
    elif posixpath.basename(sight.executable_path or "") in _NODE:
        yield from _node(sight, rooted, known, script, environ)
    else:
        yield from _go(sight, rooted, known)
    yield from _java(sight, rooted, known)
    tools = {tool for one in by_name for tool in known.found_as(one.ecosystem, one.name)}
    packages = {name for tool in tools for name in tool.find.package}
    yield from system_packages(rooted, packages)
    if packages and sight.root is not None:
        yield from machine_rpms(sight.root, packages)


def _python(
    sight: Sight,
    rooted: Rooted,
    known: Catalogue,
    script: str | None,
    environ: bytes,
    command: str | None,
) -> Iterator[Found]:
    executable = sight.executable_path
    if executable is None:
        return
    words = sight.cmdline()
    python = Interpreter(
        executable=executable,
        command=words[0] if words else command or executable,
        directory=sight.directory_path,
        script=script if script and script.startswith("/") else None,
        variables=places_of(environ),
        mapped=sight.mapped(),
    )
    yield from distributions(rooted, python, known.names("pypi"))


def _node(
    sight: Sight, rooted: Rooted, known: Catalogue, script: str | None, environ: bytes
) -> Iterator[Found]:
    starts = [posixpath.dirname(script)] if script and script.startswith("/") else []
    if sight.directory_path:
        starts.append(sight.directory_path)
    node_path = places_of(environ).get("NODE_PATH", "").split(":")
    yield from node_packages(rooted, starts, node_path, known.names("npm"))


def _go(sight: Sight, rooted: Rooted, known: Catalogue) -> Iterator[Found]:
    if sight.executable is None:
        return
    descriptor = reopen(sight.executable, stat.S_ISREG, os.O_RDONLY | os.O_NONBLOCK)
    if descriptor is None:
        return
    try:
        for module in modules(descriptor, rooted.budget):
            ecosystem = "go_main" if module.main else "go"
            if module.path in known.names(ecosystem):
                yield Found(ecosystem, module.path, module.version, sight.executable_path)
    finally:
        os.close(descriptor)


def _java(sight: Sight, rooted: Rooted, known: Catalogue) -> Iterator[Found]:
    archives = sight.archives()
    try:
        for path, held in archives:
            rooted.budget.file()
            descriptor = reopen(held, stat.S_ISREG, os.O_RDONLY | os.O_NONBLOCK)
            if descriptor is None:
                continue
            try:
                size = os.fstat(descriptor).st_size
                yield from libraries(descriptor, size, path, known.names("maven"), rooted.budget)
            finally:
                os.close(descriptor)
    finally:
        for _, held in archives:
            os.close(held)
