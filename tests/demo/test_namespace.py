"""The demo's namespace: the metadata address is real there and nowhere else."""

from __future__ import annotations

import subprocess
import sys

import pytest

from imds_proxy.demo.namespace import entry_command

INSIDE = """
import socket
from imds_proxy.demo.namespace import take_address
take_address("100.100.100.200")
server = socket.create_server(("100.100.100.200", 80))
client = socket.create_connection(("100.100.100.200", 80))
print(client.getpeername())
"""


def test_inside_the_metadata_address_can_be_served() -> None:
    words = entry_command()
    if words is None:
        pytest.skip("this kernel allows no namespaces here")
    done = subprocess.run([*words, sys.executable, "-c", INSIDE], capture_output=True, text=True, timeout=60)
    assert done.stdout == "('100.100.100.200', 80)\n", done.stderr
