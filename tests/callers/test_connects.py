"""What the kernel notes of connects: true whatever became of the process, and of one connection only."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from imds_proxy.callers.cgroupfs import CgroupTree
from imds_proxy.callers.connects import ConnectNote, ConnectNotes, note_connects
from imds_proxy.callers.resolver import Resolver
from imds_proxy.callers.sockdiag import Endpoint
from imds_proxy.callers.ticket import Ticket
from imds_proxy.emulator.service import Emulator
from imds_proxy.policy.caller import Caller
from proxy import running_proxy

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(CgroupTree.find().mount is None, reason="no cgroup v2 hierarchy is mounted"),
]


@pytest.fixture
def notes() -> Iterator[ConnectNotes]:
    noting = note_connects(CgroupTree.find().mount)
    yield noting
    noting.close()


@pytest.fixture
def resolver(notes: ConnectNotes) -> Iterator[Resolver]:
    with_notes = Resolver(notes=notes)
    yield with_notes
    with_notes.close()


def note_of(notes: ConnectNotes, accepted: socket.socket) -> ConnectNote | None:
    return notes.of(Endpoint.parse(*accepted.getpeername()[:2]), Endpoint.parse(*accepted.getsockname()[:2]))


def named(resolver: Resolver, server: socket.socket) -> tuple[Ticket, Caller]:
    accepted, peer = server.accept()
    with accepted:
        ticket = resolver.look_up(accepted, peer)
        return ticket, resolver.resolve(ticket) or resolver.scan(ticket, resolver.capture(ticket))


def test_five_hundred_that_left_before_they_were_accepted_are_known(notes: ConnectNotes) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=600) as server:
        address, truth = server.getsockname(), []
        for number in range(500):
            pid = os.fork()
            if pid == 0:
                os.setgid(3000 + number)
                os.setuid(4000 + number)
                ctypes.CDLL(None).prctl(15, f"leaver-{number}".encode(), 0, 0, 0)
                wire = socket.socket()
                wire.connect(address)
                wire.send(b"x")
                os._exit(0)
            os.waitpid(pid, 0)
            truth.append((pid, 4000 + number, 3000 + number, f"leaver-{number}".encode()))
        found = []
        for _ in truth:
            accepted, _ = server.accept()
            with accepted:
                note = note_of(notes, accepted)
            assert note is not None
            found.append((note.pid, note.uid, note.gid, note.comm))
    assert found == truth


@pytest.mark.parametrize(
    ("family", "listen", "connect"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "::", "127.0.0.1"),
        (socket.AF_INET6, "::", "::ffff:127.0.0.1"),
    ],
)
def test_in_every_family_the_ends_are_the_same(
    notes: ConnectNotes, family: socket.AddressFamily, listen: str, connect: str
) -> None:
    with (
        socket.create_server((listen, 0), family=family, dualstack_ipv6=listen == "::") as server,
        socket.create_connection((connect, server.getsockname()[1])),
    ):
        accepted, _ = server.accept()
        with accepted:
            note = note_of(notes, accepted)
    assert note is not None
    assert (note.pid, note.uid) == (os.getpid(), 0)


def test_only_the_ports_asked_for_are_noted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        notes = note_connects(CgroupTree.find().mount, [one.getsockname()[1]])
        try:
            for server, noted in ((one, True), (other, False)):
                with socket.create_connection(server.getsockname()):
                    accepted, _ = server.accept()
                    with accepted:
                        assert (note_of(notes, accepted) is not None) is noted
        finally:
            notes.close()


def test_the_same_ends_in_another_network_namespace_are_another_connection(notes: ConnectNotes) -> None:
    """A process in a namespace of its own connects between the very same addresses and ports."""
    elsewhere = """
import socket, sys, subprocess
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
wire = socket.socket()
wire.bind(("127.0.0.1", int(sys.argv[2])))
wire.connect(server.getsockname())
"""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as mine,
    ):
        accepted, _ = server.accept()
        with accepted:
            ports = [str(server.getsockname()[1]), str(mine.getsockname()[1])]
            subprocess.run(["unshare", "-n", sys.executable, "-c", elsewhere, *ports], check=True, timeout=20)
            note = note_of(notes, accepted)
    assert note is not None
    assert note.pid == os.getpid()


def test_the_oldest_notes_make_room_for_new_ones() -> None:
    notes = note_connects(CgroupTree.find().mount, entries=64)
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            for _ in range(500):
                with socket.create_connection(server.getsockname()):
                    accepted, _ = server.accept()
                    with accepted:
                        assert note_of(notes, accepted) is not None
    finally:
        notes.close()


@pytest.mark.skipif(shutil.which("nft") is None, reason="needs nftables")
def test_a_redirected_connection_is_noted_where_its_client_wanted_to_go() -> None:
    inside = """
import json, os, socket, subprocess
from imds_proxy.callers.cgroupfs import CgroupTree
from imds_proxy.callers.connects import note_connects
from imds_proxy.callers.resolver import Resolver
def sh(*words, text=None):
    subprocess.run(words, input=text, text=True, check=True)
sh("ip", "link", "set", "lo", "up")
sh("ip", "addr", "add", "169.254.100.200/32", "dev", "lo")
sh("ip", "route", "add", "default", "dev", "lo")
server = socket.create_server(("169.254.100.200", 0))
sh("nft", "-f", "-", text=f'''table inet to_the_proxy {
chain output {
    type nat hook output priority -100;
    ip daddr 100.100.100.200 tcp dport 80 dnat ip to 169.254.100.200:PORT
}
}'''.replace("PORT", str(server.getsockname()[1])))
resolver = Resolver(notes=note_connects(CgroupTree.find().mount, [80]))
pid = os.fork()
if pid == 0:
    wire = socket.create_connection(("100.100.100.200", 80))
    os._exit(0)
os.waitpid(pid, 0)
accepted, peer = server.accept()
ticket = resolver.look_up(accepted, peer)
print(json.dumps([ticket.note and ticket.note.pid == pid, resolver.scan(ticket).process.pid == pid]))
""".replace("f'''", "'''")
    done = subprocess.run(
        ["unshare", "-n", sys.executable, "-c", inside], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [True, True]


def test_a_living_process_has_its_whole_profile_and_again_at_its_next_connection(
    resolver: Resolver, server: socket.socket, client: Any
) -> None:
    client.connect(server)
    ticket, caller = named(resolver, server)
    assert ticket.note is not None
    assert caller.process is not None
    assert (caller.process.pid, caller.script, caller.why_unresolved) == (client.pid, "-c", None)
    client.connect(server, "another")
    assert named(resolver, server)[1] is caller


def test_one_that_exited_keeps_pid_user_and_name_and_passes_for_nobody(
    resolver: Resolver, server: socket.socket, client: Any
) -> None:
    client.run("os.setgroups([]); os.setgid(65534); os.setuid(65534)")
    client.connect(server)
    client.end()
    _, caller = named(resolver, server)
    assert caller.process is not None
    assert (caller.process.pid, caller.identity.uid, caller.user) == (client.pid, 65534, "nobody")
    assert caller.process.comm is not None
    assert caller.process.comm.startswith("python")
    assert caller.process.exe is None
    assert not caller.identity.resolved
    assert caller.why_unresolved == "the process has exited, or runs another program by now"


def test_one_that_exited_keeps_its_unit(
    resolver: Resolver, server: socket.socket, client: Any, new_cgroup: Callable[[str], Any]
) -> None:
    unit = new_cgroup("imds-proxy-test-noted.service")
    (unit / "cgroup.procs").write_text(str(client.pid))
    client.connect(server)
    client.end()
    _, caller = named(resolver, server)
    assert caller.identity.unit == "imds-proxy-test-noted.service"
    assert caller.identity.resolved
    assert caller.program.exe == frozenset()


def test_23_what_it_runs_by_exec_after_it_connected_is_not_its_name(
    resolver: Resolver, server: socket.socket, client: Any
) -> None:
    client.run(
        f"w = socket.create_connection({server.getsockname()!r}); os.set_inheritable(w.fileno(), True)"
    )
    accepted, peer = server.accept()
    client.tell("os.execv('/bin/sleep', ['sleep', '60'])")
    with accepted:
        while Path(f"/proc/{client.pid}/exe").readlink().name not in ("sleep", "coreutils"):
            pass
        ticket = resolver.look_up(accepted, peer)
        caller = resolver.resolve(ticket) or resolver.scan(ticket, resolver.capture(ticket))
    assert caller.process is not None
    assert (caller.process.pid, caller.process.exe) == (client.pid, None)
    assert caller.program.exe == frozenset()
    assert not caller.identity.resolved


def test_without_time_for_a_look_the_note_stands(
    resolver: Resolver, server: socket.socket, client: Any
) -> None:
    client.connect(server)
    accepted, peer = server.accept()
    with accepted:
        caller = resolver.without_a_look(resolver.look_up(accepted, peer), "no time")
    assert caller.process is not None
    assert (caller.process.pid, caller.process.exe, caller.identity.uid) == (client.pid, None, os.geteuid())
    assert caller.program.exe == frozenset(), "no rule for a program means it"


def test_a_thread_that_calls_itself_something_is_still_of_its_process(
    resolver: Resolver, server: socket.socket, client: Any
) -> None:
    client.run("import threading")
    address = server.getsockname()
    client.run(
        f"t = threading.Thread(target=lambda: (ctypes.CDLL(None).prctl(15, b'pool-1'), "
        f"globals().__setitem__('w', socket.create_connection({address!r})), signal.pause())); "
        "t.daemon = True; t.start()"
    )
    ticket, caller = named(resolver, server)
    assert ticket.note is not None
    assert ticket.note.comm == b"pool-1"
    assert caller.why_unresolved is None


def programs_on_the_root() -> int:
    """How many programs are attached to cgroup/connect4 of the v2 root, as the kernel counts."""
    mount = CgroupTree.find().mount
    assert mount is not None
    root = os.open(mount, os.O_RDONLY)
    try:
        attributes = ctypes.create_string_buffer(struct.pack("=IIIIQII", root, 10, 0, 0, 0, 0, 0), 32)
        number = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
        ctypes.CDLL(None).syscall(number, 16, attributes, 32)  # BPF_PROG_QUERY
        return int(struct.unpack_from("=I", attributes, 24)[0])
    finally:
        os.close(root)


def test_when_its_holder_is_killed_the_kernel_detaches() -> None:
    before = programs_on_the_root()
    hold = "import sys; from imds_proxy.callers.cgroupfs import CgroupTree\n"
    hold += "from imds_proxy.callers.connects import note_connects\n"
    hold += "n = note_connects(CgroupTree.find().mount); print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        assert programs_on_the_root() == before + 1
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
    end = 100
    while programs_on_the_root() != before and end:
        end -= 1
        signal.sigtimedwait([], 0.05)
    assert programs_on_the_root() == before


WITHOUT = ["setpriv", "--bounding-set=-bpf,-sys_admin,-net_admin,-perfmon", "--inh-caps=-all"]


def test_without_the_rights_auto_falls_back_with_one_line_and_serves() -> None:
    with Emulator() as service, running_proxy(service.address, within=WITHOUT) as proxy:
        assert proxy.get("/latest/meta-data/mac").status == 200
        said = [event for event in proxy.log() if event["event"] == "no-ebpf"]
    assert len(said) == 1
    assert "Operation not permitted" in said[0]["detail"]


def test_without_the_rights_ebpf_that_is_asked_for_is_no_start() -> None:
    with (
        pytest.raises(AssertionError, match="attribution: ebpf is asked for and cannot be had"),
        running_proxy(("127.0.0.1", 1), {"attribution": "ebpf"}, within=WITHOUT),
    ):
        pass


def test_outside_of_the_initial_pid_namespace_the_numbers_would_not_be_ours() -> None:
    code = "from imds_proxy.callers.connects import note_connects; note_connects('/sys/fs/cgroup')"
    words = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    assert "OSError: not in the initial pid namespace" in done.stderr


def test_without_cgroup_v2_it_cannot_be_had() -> None:
    with pytest.raises(OSError, match="no cgroup v2"):
        note_connects(None)
