"""The redirect by eBPF: programs at the root of the cgroup v2 tree that change where a connect goes.

No connection tracking, no address of its own, no rule: the kernel detaches the programs when the last holder
of their links is gone. With `closed` the links are pinned and stay.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from imds_proxy.bpf.assembler import Instruction, Label, assemble
from imds_proxy.bpf.kernel import Bpf, Kind, MapReader, Place, allow_locked_memory, netns_cookie
from imds_proxy.bpf.noting import file_the_note, note_shapes
from imds_proxy.config_values import Address
from imds_proxy.intercept.redirect import InterceptError, Plan, RedirectStatus
from imds_proxy.intercept.rewriting import LEASE, LED, Maps, Scope, Way, lead_away, show_the_service

BPFFS = Path("/sys/fs/bpf")
"""Where links are pinned."""

_FOREVER = 2**64 - 1
_SHAPES = dict(zip(("by-cookie", "by-ends", "lease", "led"), (*note_shapes(), LEASE, LED), strict=True))
_PINNED = (Place.CONNECT4, Place.CONNECT6)  # what refuses when nobody serves
_PREFIX = "ebpf-"


class EbpfRedirect:
    """A `Redirect`. It leads away connects of the network namespace in which it is made.

    `cgroup_mount` is where the v2 tree is mounted, None where it is not. `adopted` are descriptors of an
    earlier run, as `descriptors` named them: what still fits is used again, so that no connect comes between
    the runs and what was noted stays known; the rest is closed. `clock` gives nanoseconds of CLOCK_MONOTONIC.
    """

    def __init__(
        self,
        plan: Plan,
        cgroup_mount: str | None,
        adopted: Mapping[str, int] | None = None,
        bpffs: Path = BPFFS,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._plan, self._mount, self._bpffs, self._clock = plan, cgroup_mount, bpffs, clock
        self._adopted = dict(adopted or {})
        self._maps: dict[str, int] = {}
        self._links: dict[Place, int] = {}

    def up(self) -> None:
        """See `Redirect.up`."""
        if self._links:
            return
        try:
            self._up(Bpf())
        except OSError as error:
            self._let_go()
            raise _refused(error) from None
        except InterceptError:
            self._let_go()
            raise

    def renew(self) -> str | None:
        """See `Redirect.renew`."""
        if not self._links:
            return None
        try:
            bpf = Bpf()
            lost = [place for place, link in self._links.items() if not bpf.is_link(link, place)]
            if lost:
                self._attach(bpf)
            self._extend(bpf)
        except OSError as error:
            raise _refused(error) from None
        return "the eBPF programs were detached by another program, and are put back" if lost else None

    def open_way(self) -> None:
        """See `Redirect.open_way`."""
        if self._plan.closed:  # without a lease it would refuse
            self.down()
        self._lapse()

    def down(self) -> None:
        """See `Redirect.down`. What an earlier run has pinned is taken away too."""
        self._unpin()
        self._let_go()

    def release(self) -> None:
        """See `Redirect.release`."""
        self._let_go()

    def status(self) -> RedirectStatus:
        """See `Redirect.status`."""
        if not self._links:
            pinned = self._mount is not None and any(self._is_pinned(place) for place in _PINNED)
            return RedirectStatus("ebpf", pinned, "link" if pinned else None, _name() if pinned else None)
        bpf = Bpf()
        attached = all(bpf.is_link(link, place) for place, link in self._links.items())
        value = MapReader(bpf, self._maps["lease"], LEASE.key_size, LEASE.value_size).get(_key())
        live = value is not None and struct.unpack("=Q", value)[0] >= self._clock()
        in_force = attached and (live or self._plan.closed)
        return RedirectStatus("ebpf", in_force, "link" if attached else None, _name())

    def descriptors(self) -> dict[str, int]:
        """See `Redirect.descriptors`: the links, and the maps that belong to their programs."""
        links = {place.name.lower(): link for place, link in self._links.items()}
        return {_PREFIX + name: number for name, number in (self._maps | links).items()} if links else {}

    @property
    def notes_map(self) -> int | None:
        """The map in which connects are noted by their ends (`bpf.noting`); None while it is not up."""
        return self._maps.get("by-ends") if self._links else None

    def _up(self, bpf: Bpf) -> None:
        if self._mount is None:
            raise InterceptError(
                "no-cgroup2", "no cgroup v2 hierarchy is mounted", "eBPF programs are attached to its root"
            )
        allow_locked_memory()
        for name, shape in _SHAPES.items():
            number = self._adopted.pop(_PREFIX + name, None)
            if number is not None and not bpf.is_map(number, shape):
                os.close(number)
                number = None
            self._maps[name] = bpf.map(shape) if number is None else number
        for place in Place:
            number = self._adopted.pop(_PREFIX + place.name.lower(), None)
            if number is not None:
                self._links[place] = number
        self._attach(bpf)
        for number in self._adopted.values():
            os.close(number)
        self._adopted.clear()
        if self._plan.closed:
            self._make_outlive(bpf)
        else:
            self._unpin()
        self._extend(bpf)

    def _attach(self, bpf: Bpf) -> None:
        """Loads the programs and puts each in its place; a link that is there gets the new one."""
        assert self._mount is not None
        root = os.open(self._mount, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for kind, place, lines in self._programs():
                program = bpf.program(kind, place, assemble(lines))
                try:
                    self._put(bpf, place, program, root)
                finally:
                    os.close(program)  # its link holds it
        finally:
            os.close(root)

    def _put(self, bpf: Bpf, place: Place, program: int, root: int) -> None:
        link = self._links.get(place)
        if link is None and self._plan.closed and place in _PINNED:
            with suppress(OSError):
                link = self._links[place] = bpf.pinned(str(self._pin(place)))
        if link is not None and bpf.is_link(link, place):
            bpf.replace(link, program)
            return
        fresh = bpf.link(program, root, place)
        if link is not None:
            os.close(link)
        self._links[place] = fresh

    def _programs(self) -> Iterator[tuple[Kind, Place, Iterator[Instruction | Label]]]:
        plan, maps = self._plan, Maps(*(self._maps[name] for name in _SHAPES))
        ways = [_way(service, listener) for service, listener in plan.pairs()]
        ports = tuple(sorted({port for way in ways for port in (way.service_port, way.listener_port)}))
        scope = Scope(netns_cookie(), plan.mark, plan.exempt_uid, plan.closed)
        # First who files the notes, last who leads away: nothing is noted or led that is not told later.
        yield Kind.SOCK_OPS, Place.SOCK_OPS, file_the_note(maps.by_cookie, maps.by_ends)
        for place, six in ((Place.PEER4, False), (Place.PEER6, True)):
            yield Kind.SOCK_ADDR, place, show_the_service(ways, scope, maps, six)
        for place, six in ((Place.CONNECT4, False), (Place.CONNECT6, True)):
            yield Kind.SOCK_ADDR, place, lead_away(ways, scope, maps, ports, six)

    def _make_outlive(self, bpf: Bpf) -> None:
        for place in _PINNED:
            if self._is_pinned(place):
                continue
            try:
                bpf.pin(self._links[place], str(self._pin(place)))
            except OSError as error:
                raise InterceptError(
                    "no-bpffs",
                    f"on_failure: closed pins its links below {self._bpffs}: {error.strerror}",
                    f"mount it: mount -t bpf bpf {self._bpffs}",
                ) from None

    def _pin(self, place: Place) -> Path:
        return self._bpffs / f"{_name()}_{place.name.lower()}"

    def _is_pinned(self, place: Place) -> bool:
        try:
            return self._pin(place).exists()
        except OSError:
            return False

    def _extend(self, bpf: Bpf) -> None:
        lease = self._plan.lease
        self._lease_until(bpf, _FOREVER if lease is None else self._clock() + int(lease * 1e9))

    def _lease_until(self, bpf: Bpf, nanoseconds: int) -> None:
        bpf.put(self._maps["lease"], _key(), struct.pack("=Q", nanoseconds))

    def _unpin(self) -> None:
        with suppress(OSError):
            for place in _PINNED:
                self._pin(place).unlink(missing_ok=True)

    def _lapse(self) -> None:
        if "lease" in self._maps:
            with suppress(OSError):
                self._lease_until(Bpf(), 0)

    def _let_go(self) -> None:
        self._lapse()  # copies of the links may be held elsewhere: without a lease they lead nothing away
        for held in (self._links, self._maps, self._adopted):
            for number in held.values():
                os.close(number)
            held.clear()


def _key() -> bytes:
    return bytes(LEASE.key_size)


def _name() -> str:
    """What is to be seen of it in the kernel: one redirect for each network namespace."""
    return f"imds_proxy_{netns_cookie()}"


def _way(service: Address, listener: Address) -> Way:
    family = socket.AF_INET6 if ":" in service.host else socket.AF_INET
    service_address, listener_address = (
        socket.inet_pton(family, one.host.partition("%")[0]) for one in (service, listener)
    )
    return Way(service_address, service.port, listener_address, listener.port)


def _refused(error: OSError) -> InterceptError:
    if error.errno in (errno.EPERM, errno.EACCES):
        return InterceptError(
            "no-capability",
            "the kernel lets this process load no eBPF programs",
            "it needs CAP_BPF and CAP_NET_ADMIN",
        )
    return InterceptError(
        "ebpf-refused",
        f"the kernel takes no eBPF redirect: {error.strerror or error}",
        "it needs Linux 5.14 with cgroup v2; nftables is the other method",
    )
