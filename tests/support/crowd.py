"""A crowd of callers, of five users: some live for milliseconds, some long. What is true of each is printed.

A program: `crowd.py PORT SHORT LONG`. Prints a list, one `[number, pid, uid, lasting]` for each connection.
"""

from __future__ import annotations

import json
import os
import random
import socket
import sys
import time
from contextlib import suppress

USERS = (5001, 5002, 5003, 5004, 5005)
LASTING = 5
PACE = 0.012  # seconds between new processes; see swarm.py


def call(port: int, number: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as wire:
        wire.sendall(b"%d\n" % number)
        wire.recv(1)  # until it is named


def become(uid: int) -> None:
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)


def main() -> None:
    port, short, long = (int(word) for word in sys.argv[1:])
    truth: list[tuple[int, int, int, bool]] = []
    chance = random.Random(1)
    for index in range(LASTING):
        numbers = range(short + index, short + long, LASTING)
        pid = os.fork()
        if pid == 0:
            become(USERS[index])
            for number in numbers:
                call(port, number)
                time.sleep(LASTING * PACE)
            os._exit(0)
        truth += [(number, pid, USERS[index], True) for number in numbers]
    for number in range(short):
        life = chance.random() * 0.005  # drawn here: forks would all draw the same
        pid = os.fork()
        if pid == 0:
            become(USERS[number % 5])
            wire = socket.create_connection(("127.0.0.1", port))
            wire.sendall(b"%d\n" % number)
            time.sleep(life)
            os._exit(wire.fileno() < 0)  # it is closed by the exit, not before
        truth.append((number, pid, USERS[number % 5], False))
        time.sleep(PACE)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    with suppress(ChildProcessError):
        while True:
            os.wait()
    json.dump(truth, sys.stdout)


main()
