"""The eBPF redirect in the kernel: whose connects arrive at the proxy, and when they no longer do."""

from __future__ import annotations

import array
import ctypes
import errno
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from elsewhere import Elsewhere, elsewhere
from imds_proxy.bpf.kernel import Bpf, Place
from imds_proxy.callers.cgroupfs import CgroupTree
from imds_proxy.callers.connects import ConnectNotes
from imds_proxy.callers.resolver import Resolver
from imds_proxy.callers.sockdiag import Endpoint
from imds_proxy.config_values import Address
from imds_proxy.intercept.ebpf import EbpfRedirect
from imds_proxy.intercept.redirect import InterceptError, Plan
from places import within

MOUNT = CgroupTree.find().mount
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(MOUNT is None, reason="no cgroup v2 hierarchy is mounted"),
]

V4, V6 = Address("100.100.100.200", 80), Address("fd00:100::100:200", 80)
MARK = 0x494D
ANYBODY = 60_000


@pytest.fixture
def host() -> Iterator[Elsewhere]:
    with elsewhere() as place:
        yield place


@pytest.fixture
def server(host: Elsewhere) -> Iterator[socket.socket]:
    with host.call(socket.create_server, ("127.0.0.1", 0), backlog=100) as listening:
        listening.settimeout(5)
        yield listening


@pytest.fixture
def server6(host: Elsewhere) -> Iterator[socket.socket]:
    with host.call(socket.create_server, ("::1", 0), family=socket.AF_INET6) as listening:
        listening.settimeout(5)
        yield listening


@pytest.fixture
def plan(server: socket.socket, server6: socket.socket) -> Plan:
    listeners = (Address("127.0.0.1", server.getsockname()[1]), Address("::1", server6.getsockname()[1]))
    return Plan((V4, V6), listeners, MARK, exempt_uid=ANYBODY, lease=60.0)


@pytest.fixture
def make(host: Elsewhere, plan: Plan) -> Iterator[Callable[..., EbpfRedirect]]:
    made: list[EbpfRedirect] = []

    def one(adopted: dict[str, int] | None = None, **other: object) -> EbpfRedirect:
        changed = replace(plan, **other)  # type: ignore[arg-type]
        made.append(host.call(EbpfRedirect, changed, MOUNT, adopted))
        return made[-1]

    yield one
    for redirect in made:
        host.call(redirect.down)


@pytest.fixture
def redirect(host: Elsewhere, make: Callable[..., EbpfRedirect]) -> EbpfRedirect:
    led = make()
    host.call(led.up)
    return led


def connect(
    address: tuple[str, int], family: int = socket.AF_INET, mark: int = 0, uid: int | None = None
) -> socket.socket:
    """Raises OSError, at once: nothing else has a route."""
    wire = socket.socket(family, socket.SOCK_STREAM)
    wire.settimeout(5)
    if mark:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    if uid is not None:
        _setresuid(uid)
    try:
        wire.connect(address)
    except OSError:
        wire.close()
        raise
    finally:
        if uid is not None:
            _setresuid(0)
    return wire


def _setresuid(uid: int) -> None:
    # Of this thread alone, and its real uid, as the kernel's system call has it.
    number = {"x86_64": 117, "aarch64": 147}[os.uname().machine]
    assert ctypes.CDLL(None).syscall(number, uid, -1 if uid else 0, 0) == 0


def is_led(host: Elsewhere, server: socket.socket, **how: int) -> bool:
    try:
        with host.call(connect, ("100.100.100.200", 80), **how) as wire:
            accepted, peer = server.accept()
            accepted.close()
            assert peer == wire.getsockname()
            return True
    except OSError as error:
        assert error.errno == errno.ENETUNREACH
        return False


@pytest.mark.parametrize(
    ("family", "address", "six"),
    [
        (socket.AF_INET, "100.100.100.200", False),
        (socket.AF_INET6, "::ffff:100.100.100.200", False),
        (socket.AF_INET6, "fd00:100::100:200", True),
    ],
)
def test_a_connect_to_the_service_arrives_at_the_proxy_and_its_client_sees_the_service(
    host: Elsewhere,
    redirect: EbpfRedirect,
    server: socket.socket,
    server6: socket.socket,
    family: socket.AddressFamily,
    address: str,
    six: bool,
) -> None:
    with host.call(connect, (address, 80), family) as wire:
        accepted, peer = (server6 if six else server).accept()
        with accepted:
            accepted.send(b"from the proxy")
            assert wire.recv(100) == b"from the proxy"
            assert wire.getpeername()[:2] == (address, 80)
            assert peer[1] == wire.getsockname()[1]


def test_who_asks_for_the_proxy_itself_sees_the_proxy(
    host: Elsewhere, redirect: EbpfRedirect, server: socket.socket
) -> None:
    with host.call(connect, server.getsockname()) as wire:
        assert wire.getpeername() == server.getsockname()


@pytest.mark.parametrize("address", [("100.100.100.200", 81), ("100.100.100.201", 80), ("1.1.1.1", 80)])
def test_other_addresses_and_ports_are_left_alone(
    host: Elsewhere, redirect: EbpfRedirect, address: tuple[str, int]
) -> None:
    with pytest.raises(OSError, match="unreachable"):
        host.call(connect, address)


def test_datagrams_are_left_alone(host: Elsewhere, redirect: EbpfRedirect) -> None:
    def ask() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
            wire.connect(("100.100.100.200", 80))

    with pytest.raises(OSError, match="unreachable"):
        host.call(ask)


def test_tcp_fast_open_is_led_too(host: Elsewhere, redirect: EbpfRedirect, server: socket.socket) -> None:
    def ask() -> socket.socket:
        wire = socket.socket()
        wire.sendto(b"GET", 0x20000000, ("100.100.100.200", 80))  # MSG_FASTOPEN
        return wire

    with host.call(ask):
        accepted, _ = server.accept()
        with accepted:
            assert accepted.recv(10) == b"GET"


def test_the_proxys_own_sockets_are_exempt_by_their_mark_or_user(
    host: Elsewhere, redirect: EbpfRedirect, server: socket.socket
) -> None:
    assert is_led(host, server)
    assert not is_led(host, server, mark=MARK)
    assert not is_led(host, server, uid=ANYBODY)
    assert is_led(host, server, mark=MARK + 1)
    assert is_led(host, server, uid=ANYBODY + 1)


def test_another_network_namespace_is_left_alone(redirect: EbpfRedirect) -> None:
    with elsewhere() as other, pytest.raises(OSError, match="unreachable"):
        other.call(connect, ("100.100.100.200", 80))


def test_27_who_makes_himself_the_exempt_user_or_root_in_a_namespace_of_his_own_is_led_all_the_same(
    host: Elsewhere, redirect: EbpfRedirect, server: socket.socket
) -> None:
    """Neither the number that he has there nor a mark, which he may not set, lets him through."""
    for inside in (f"--map-user={ANYBODY}", "--map-root-user"):
        mark = "w.setsockopt(1, 36, 0x494D)"  # SO_MARK
        code = "import socket; w = socket.socket()\n"
        code += f"try: {mark}\nexcept PermissionError: pass\n"
        code += "w.connect(('100.100.100.200', 80))"
        words = within(["unshare", "--user", inside, "/usr/bin/env", "python3", "-c", code], 65534)
        process = host.call(subprocess.Popen, words, env={"PATH": "/usr/bin:/bin"})
        assert process.wait(20) == 0
        accepted, peer = server.accept()
        with accepted, closing(notes_of(host, redirect)) as notes:
            note = notes.of(Endpoint.parse(*peer), Endpoint.parse(*server.getsockname()))
        assert note is not None
        assert note.uid == 65534


def test_31_without_renewal_the_lease_lapses_and_a_renewal_takes_the_traffic_back(
    host: Elsewhere, make: Callable[..., EbpfRedirect], server: socket.socket
) -> None:
    led = make(lease=0.5)
    host.call(led.up)
    begun = time.monotonic()
    assert is_led(host, server)
    while is_led(host, server):
        assert time.monotonic() < begun + 5
    assert time.monotonic() - begun >= 0.4
    assert not host.call(led.status).in_force
    assert host.call(led.renew) is None
    assert is_led(host, server)
    assert host.call(led.status).in_force


def test_a_redirect_without_a_lease_stands_without_renewal(
    host: Elsewhere, make: Callable[..., EbpfRedirect], server: socket.socket
) -> None:
    led = make(lease=None)
    host.call(led.up)
    assert is_led(host, server)
    assert host.call(led.status).in_force


def attached() -> list[int]:
    """How many programs are attached at each place of the v2 root, as the kernel counts."""
    assert MOUNT is not None
    root = os.open(MOUNT, os.O_RDONLY)
    try:
        number = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
        found = []
        for place in Place:
            query = ctypes.create_string_buffer(struct.pack("=IIIIQII", root, place, 0, 0, 0, 0, 0), 32)
            ctypes.CDLL(None).syscall(number, 16, query, 32)  # BPF_PROG_QUERY
            found.append(struct.unpack_from("=I", query, 24)[0])
        return found
    finally:
        os.close(root)


def test_up_twice_is_up_once_and_down_leaves_nothing(
    host: Elsewhere, make: Callable[..., EbpfRedirect], server: socket.socket
) -> None:
    led = make()
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    host.call(led.up)
    descriptors = led.descriptors()
    host.call(led.up)
    assert led.descriptors() == descriptors
    bpf = Bpf()
    held = {place: os.dup(descriptors[f"ebpf-{place.name.lower()}"]) for place in Place}
    host.call(led.down)
    assert not is_led(host, server)  # not even while copies of the links are held
    assert all(bpf.is_link(link, place) for place, link in held.items())
    for link in held.values():
        os.close(link)
    assert led.descriptors() == {}
    assert not host.call(led.status).in_force
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before
    host.call(led.down)
    host.call(led.up)
    assert is_led(host, server)


HOLDER = """
import array, os, socket, sys
from imds_proxy.config_values import Address
from imds_proxy.intercept.ebpf import EbpfRedirect
from imds_proxy.intercept.redirect import Plan
port, mount, passing = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
plan = Plan((Address("100.100.100.200", 80),), (Address("127.0.0.1", port),), 0x494D, lease=60.0)
redirect = EbpfRedirect(plan, mount)
redirect.up()
names = redirect.descriptors()
with socket.socket(fileno=passing) as wire:
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", names.values()))
    wire.sendmsg([",".join(names).encode()], [rights])
    wire.recv(1)
"""


def held_elsewhere(host: Elsewhere, port: int) -> tuple[subprocess.Popen[str], dict[str, int]]:
    """A redirect of another process, and copies of its descriptors as systemd's store would have them."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        words = [sys.executable, "-c", HOLDER, str(port), str(MOUNT), str(theirs.fileno())]
        holder = host.call(subprocess.Popen, words, pass_fds=[theirs.fileno()], text=True)
        numbers = array.array("i")
        ours.settimeout(20)
        message, rights, _, _ = ours.recvmsg(1000, socket.CMSG_SPACE(40 * numbers.itemsize))
        for _, _, data in rights:
            numbers.frombytes(data)
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
    return holder, dict(zip(message.decode().split(","), numbers, strict=True))


def test_31_when_its_holder_is_killed_nothing_is_led_away(host: Elsewhere, server: socket.socket) -> None:
    _, stored = held_elsewhere(host, server.getsockname()[1])
    assert is_led(host, server)  # the store holds it
    for number in stored.values():
        os.close(number)
    end = time.monotonic() + 5
    while is_led(host, server):  # the kernel detaches in its own time
        assert time.monotonic() < end


def test_the_next_run_takes_over_what_was_stored_with_all_that_was_noted(
    host: Elsewhere, make: Callable[..., EbpfRedirect], server: socket.socket
) -> None:
    _, stored = held_elsewhere(host, server.getsockname()[1])
    programs = attached()
    with host.call(connect, ("100.100.100.200", 80)) as waiting:  # between the runs
        client = Endpoint.parse(*waiting.getsockname())
        led = make(dict(stored))
        host.call(led.up)
        assert led.descriptors() == stored
        assert attached() == programs  # replaced in place, not beside
        accepted, _ = server.accept()
        with accepted, closing(notes_of(host, led)) as notes:
            note = notes.of(client, Endpoint.parse(*server.getsockname()))
        assert note is not None
        assert note.pid == os.getpid()
    assert is_led(host, server)
    host.call(led.down)
    assert not is_led(host, server)


def test_what_is_stored_and_fits_no_more_is_closed(
    host: Elsewhere, make: Callable[..., EbpfRedirect], server: socket.socket, tmp_path: Path
) -> None:
    stored = {
        name: os.open(tmp_path, os.O_RDONLY) for name in ("ebpf-lease", "ebpf-connect4", "ebpf-of-the-future")
    }
    led = make(dict(stored))
    host.call(led.up)
    assert is_led(host, server)
    targets = {Path(f"/proc/self/fd/{name}").readlink().name for name in led.descriptors().values()}
    assert all("bpf" in target for target in targets)
    assert "ebpf-of-the-future" not in led.descriptors()


def test_31_programs_that_another_tool_detached_are_put_back_and_it_says_so(
    host: Elsewhere, redirect: EbpfRedirect, server: socket.socket
) -> None:
    link = redirect.descriptors()["ebpf-connect4"]
    detach = ctypes.create_string_buffer(struct.pack("=I", link), 4)
    number = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
    assert ctypes.CDLL(None).syscall(number, 34, detach, 4) == 0  # BPF_LINK_DETACH
    assert not is_led(host, server)
    assert not host.call(redirect.status).in_force
    said = host.call(redirect.renew)
    assert said is not None
    assert "put back" in said
    assert is_led(host, server)
    assert host.call(redirect.renew) is None


@pytest.fixture
def bpffs(tmp_path: Path) -> Iterator[Path]:
    subprocess.run(["mount", "-t", "bpf", "bpf", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_closed_refuses_at_once_when_nobody_serves_until_it_is_taken_down(
    host: Elsewhere, plan: Plan, server: socket.socket, bpffs: Path
) -> None:
    closed = replace(plan, closed=True)
    led = host.call(EbpfRedirect, closed, MOUNT, None, bpffs)
    host.call(led.up)
    assert is_led(host, server)
    host.call(led.release)  # as the daemon stops
    for exempt in (False, True):
        expected = "unreachable" if exempt else "not permitted"
        with pytest.raises(OSError, match=expected):
            host.call(connect, ("100.100.100.200", 80), mark=MARK if exempt else 0)
    assert host.call(led.status).in_force
    again = host.call(EbpfRedirect, closed, MOUNT, None, bpffs)
    host.call(again.up)
    assert len(list(bpffs.glob("imds_proxy_*"))) == 2
    assert is_led(host, server)
    host.call(again.down)
    assert not list(bpffs.glob("imds_proxy_*"))
    assert not is_led(host, server)


def test_what_was_pinned_for_closed_is_gone_once_it_is_open(
    host: Elsewhere, plan: Plan, server: socket.socket, bpffs: Path
) -> None:
    led = host.call(EbpfRedirect, replace(plan, closed=True), MOUNT, None, bpffs)
    host.call(led.up)
    host.call(led.release)
    led = host.call(EbpfRedirect, plan, MOUNT, None, bpffs)
    host.call(led.up)
    assert not list(bpffs.glob("imds_proxy_*"))
    host.call(led.down)
    assert not is_led(host, server)


def test_closed_without_a_place_to_pin_says_what_to_mount(
    host: Elsewhere, plan: Plan, server: socket.socket, tmp_path: Path
) -> None:
    led = host.call(EbpfRedirect, replace(plan, closed=True), MOUNT, None, tmp_path)
    with pytest.raises(InterceptError, match="mount -t bpf bpf"):
        host.call(led.up)
    assert not is_led(host, server)
    assert led.descriptors() == {}


def notes_of(host: Elsewhere, led: EbpfRedirect) -> ConnectNotes:
    assert led.notes_map is not None
    return host.call(ConnectNotes, [os.dup(led.notes_map)])


def test_a_client_that_was_led_away_is_named_though_it_has_exited(
    host: Elsewhere, redirect: EbpfRedirect, server: socket.socket
) -> None:
    leaver = "import encodings.idna, os, socket; os.setgid(4000); os.setuid(4001); "
    leaver += "socket.create_connection(('100.100.100.200', 80))"
    resolver = host.call(Resolver, notes=notes_of(host, redirect))
    try:
        process = host.call(subprocess.Popen, [sys.executable, "-c", leaver])
        process.wait(20)
        accepted, peer = server.accept()
        with accepted:
            caller = resolver.scan(resolver.look_up(accepted, peer))
    finally:
        resolver.close()
    assert caller.process is not None
    assert (caller.process.pid, caller.identity.uid) == (process.pid, 4001)


def test_a_living_client_that_was_led_away_is_found_without_notes(
    host: Elsewhere, redirect: EbpfRedirect, server: socket.socket
) -> None:
    resolver = host.call(Resolver)
    try:
        with host.call(connect, ("100.100.100.200", 80)):
            accepted, peer = server.accept()
            with accepted:
                caller = resolver.scan(resolver.look_up(accepted, peer))
    finally:
        resolver.close()
    assert caller.process is not None
    assert caller.process.pid == os.getpid()


def test_without_a_cgroup_v2_hierarchy_it_says_so(host: Elsewhere, plan: Plan) -> None:
    with pytest.raises(InterceptError, match="no cgroup v2 hierarchy is mounted"):
        host.call(EbpfRedirect(plan, None).up)


def test_without_the_rights_it_says_which_are_needed(server: socket.socket, host: Elsewhere) -> None:
    tried = "\ntry: redirect.up()\nexcept Exception as e: sys.exit(f'{e.slug}: {e}')"
    code = HOLDER.replace("redirect.up()", tried)
    done = host.call(
        subprocess.run,
        [
            *("setpriv", "--bounding-set=-bpf,-sys_admin,-net_admin,-perfmon", "--inh-caps=-all"),
            *(sys.executable, "-c", code, str(server.getsockname()[1]), str(MOUNT), "0"),
        ],
        capture_output=True,
        text=True,
    )
    said = "no-capability: the kernel lets this process load no eBPF programs; "
    assert done.stderr.strip() == said + "it needs CAP_BPF and CAP_NET_ADMIN"
