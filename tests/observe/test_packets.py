"""The packet socket on a loopback of its own, where the service's address is real."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a namespace")]

LISTEN_AND_TALK = """
import json, select, socket
from imds_proxy.demo.namespace import take_address
from imds_proxy.observe.packets import PacketSocket
take_address("100.100.100.200")
seen = []
packets = PacketSocket(["100.100.100.200", "fd00:100::100:200"], 80)
server = socket.create_server(("100.100.100.200", 80))
other = socket.create_server(("127.0.0.1", 80))
for address in (("100.100.100.200", 80), ("127.0.0.1", 80)):
    client = socket.create_connection(address)
    accepted, _ = (server if address[0] != "127.0.0.1" else other).accept()
    client.sendall(b"question")
    accepted.recv(99)
    accepted.sendall(b"answer")
    client.recv(99)
    client.close()
    accepted.close()
while select.select([packets], [], [], 0.2)[0]:
    packets.read(lambda one, from_client: seen.append((from_client, one.payload.decode(), one.syn)))
print(json.dumps([seen, packets.count_lost()]))
"""


def test_each_segment_is_seen_once_and_nothing_of_other_addresses() -> None:
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", LISTEN_AND_TALK],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    seen, lost = json.loads(done.stdout)
    assert [one for one in seen if one[1]] == [[True, "question", False], [False, "answer", False]]
    assert [one[0] for one in seen if one[2]] == [True, False], "a SYN each way"
    assert lost == 0
