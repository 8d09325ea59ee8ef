"""A service that is disturbed all the time, and callers of every kind who check what they hear."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from behaviours import Heard, aborting, half_closing, heading, patient, pipelining, question, reading_slowly
from imds_proxy.emulator.service import Emulator
from imds_proxy.emulator.settings import FAULTS
from proxy import TOKEN_HEADER, TTL_HEADER, Proxy
from served import answer
from turned import LISTING, ROLE

TAGS = tuple(f"meta-data/tags/instance/t{number}" for number in range(8))
FIXED = tuple(f"meta-data/image/f{number}" for number in range(8))
KNOWN = (*TAGS, *FIXED)
VALUES = {item: f"value of {item} " * 20 for item in KNOWN}
USUAL = {"fault": None, "get_status": None, "put_status": None, "throttle": None, "latency": None}
ALLOWED = {200, 404, 429, 500, 502, 503}
_PATIENCE = 5.0  # seconds, for an answer that is due within one; this machine may be busy


class Chaos(threading.Thread):
    """Disturbs the service, now this way, now that, with breaks in between, until it is stopped."""

    def __init__(self, service: Emulator, seed: int) -> None:
        super().__init__(daemon=True)
        self._service, self._chance, self._over = service, random.Random(seed), threading.Event()
        self.done: Counter[str] = Counter()

    def stop(self) -> None:
        self._over.set()
        self.join()
        self._service.patch(USUAL)

    def run(self) -> None:
        deeds: dict[str, Callable[[], object]] = {
            **{f"fault {kind}": self._patch(fault=kind) for kind in FAULTS},
            "a third reset": self._patch(fault="reset_mid_body", fault_rate=0.3),
            "throttle": self._patch(throttle=5, throttle_burst=5),
            "500": self._patch(get_status=500),
            "503": self._patch(get_status=503),
            "no tokens": self._patch(put_status=500),
            "slow": self._patch(latency=0.3, tail_latency=2, tail_rate=0.2),
            "revoke": self._service.revoke_tokens,
            "cut": self._service.reset_connections,
            "restart": self._restart,
            "no role": self._patch(role=None),
        }
        while not self._over.wait(self._chance.uniform(0.2, 0.8)):
            name = self._chance.choice(list(deeds))
            deeds[name]()
            self.done[name] += 1
            self._over.wait(self._chance.uniform(0.1, 1.2))
            self._service.patch({**USUAL, "fault_rate": 1, "tail_rate": 0, "role": "demo-role"})

    def _patch(self, **settings: object) -> Callable[[], object]:
        return lambda: self._service.patch(settings)

    def _restart(self) -> None:
        self._service.stop()
        self._service.start()


@dataclass
class Findings:
    """What callers heard; `wrong` are broken invariants."""

    heard: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)

    def answer(self, kind: str, item: str, heard: Heard, body: bytes | None = None) -> None:
        """One answer to a caller of a kind; `body` is what a 200 has to hold."""
        self.heard[kind] += 1
        self.statuses[heard.status] += 1
        if heard.status not in ALLOWED:
            self.wrong.append(f"{kind}: {item} was answered {heard.outcome}")
        if heard.status == 200 and body is not None and heard.body != body:
            self.wrong.append(f"{kind}: {item} got another answer: {heard.body[:80]!r}")


@dataclass
class Callers:
    """Each kind asks on and on until `until` (seconds, monotonic)."""

    proxy: Proxy
    service: Emulator
    until: float
    findings: Findings = field(default_factory=Findings)
    chance: random.Random = field(default_factory=lambda: random.Random(12))

    async def all(self) -> Findings:
        kinds: list[tuple[str, int, Callable[[], Awaitable[None]]]] = [
            ("polling", 12, self._poll),
            ("using credentials", 4, self._use_credentials),
            ("hardened", 3, self._use_tokens),
            ("asking for signatures", 2, self._sign),
            ("pipelining", 2, lambda: self._known("pipelining", pipelining, 6)),
            ("half-closing", 1, lambda: self._known("half-closing", half_closing, 2)),
            ("HEAD", 1, lambda: self._known("HEAD", heading, 2)),
            ("reading slowly", 1, lambda: self._known("reading slowly", reading_slowly, 2)),
            ("aborting", 2, lambda: self._known("aborting", aborting, 2)),
            ("greedy", 1, self._be_greedy),
        ]
        await asyncio.gather(*(self._again(kind, act) for kind, count, act in kinds for _ in range(count)))
        return self.findings

    async def _again(self, kind: str, act: Callable[[], Awaitable[None]]) -> None:
        while time.monotonic() < self.until:
            try:
                await asyncio.wait_for(act(), 4 * _PATIENCE)
            except (OSError, EOFError, AssertionError, asyncio.TimeoutError, TimeoutError) as error:
                self.findings.wrong.append(f"{kind}: unanswered: {error!r}")
            await asyncio.sleep(self.chance.uniform(0.01, 0.1))

    async def _known(
        self, kind: str, behave: Callable[[int, Sequence[str]], Awaitable[list[Heard]]], count: int
    ) -> None:
        items = self.chance.sample(KNOWN, count)
        heard = await asyncio.wait_for(behave(self.proxy.port, items), count * _PATIENCE)
        for item, one in zip(items, heard, strict=True):
            self.findings.answer(kind, item, one, b"" if kind == "HEAD" else VALUES[item].encode())

    async def _poll(self) -> None:
        """Keeps its connection for some calls."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.proxy.port)
        try:
            for _ in range(20):
                item = self.chance.choice(KNOWN)
                writer.write(question(item))
                status, _, body = await asyncio.wait_for(answer(reader), _PATIENCE)
                self.findings.answer("polling", item, Heard(status, "", body), VALUES[item].encode())
                await asyncio.sleep(0.02)
        finally:
            writer.transport.abort()

    async def _use_credentials(self) -> None:
        asked = self.service.service.now()
        listing, role = await patient(self.proxy.port, [LISTING, ROLE])
        self.findings.answer("using credentials", LISTING, listing, b"demo-role")
        self.findings.answer("using credentials", ROLE, role)
        if role.status == 200:
            text = json.loads(role.body)["Expiration"]
            left = datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() - asked
            if left <= 0:  # when it was asked for already
                self.findings.wrong.append(f"credentials that had expired {-left:.1f} s before")

    async def _use_tokens(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.proxy.port)
        try:
            writer.write(question("api/token", "PUT", f"{TTL_HEADER}: 60", "Content-Length: 0"))
            status, _, token = await asyncio.wait_for(answer(reader), _PATIENCE)
            self.findings.answer("hardened", "the token", Heard(status, "", token))
            if status != 200:
                return
            self.findings.tokens.add(hashlib.sha256(token).hexdigest())
            item = self.chance.choice(KNOWN)
            writer.write(question(item, "GET", f"{TOKEN_HEADER}: {token.decode()}"))
            status, _, body = await asyncio.wait_for(answer(reader), _PATIENCE)
            self.findings.answer("hardened", item, Heard(status, "", body), VALUES[item].encode())
        finally:
            writer.transport.abort()

    async def _sign(self) -> None:
        nonce = f"nonce-{self.chance.getrandbits(64):x}"
        path = f"dynamic/instance-identity/pkcs7?audience={nonce}"
        heard = (await patient(self.proxy.port, [path]))[0]
        self.findings.answer("asking for signatures", path, heard)
        if heard.status == 200 and nonce.encode() not in base64.b64decode(heard.body):
            self.findings.wrong.append("a signature for another caller's nonce")

    async def _be_greedy(self) -> None:
        paths = [f"meta-data/tags/instance/none-{self.chance.getrandbits(64):x}" for _ in range(30)]
        for path, heard in zip(paths, await pipelining(self.proxy.port, paths), strict=True):
            self.findings.answer("greedy", path, heard)
            if heard.status == 200:
                self.findings.wrong.append(f"greedy: {path} is not there and was answered")


def resident(pid: int) -> int:
    """Bytes of a process that are in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


@dataclass
class Samples:
    """Time, resident bytes of the daemon, and calls that have reached the service, again and again."""

    taken: list[tuple[float, int, int]] = field(default_factory=list)

    async def take(self, proxy: Proxy, service: Emulator, until: float) -> None:
        while time.monotonic() < until:
            counts = service.counters()
            calls = counts.token_puts + counts.v1_gets + counts.v2_gets
            self.taken.append((time.monotonic(), resident(proxy.process.pid), calls))
            await asyncio.sleep(0.2)

    def over(self, rate: float, burst: float) -> float:
        """By how many calls a budget was exceeded in the worst stretch of time; 0 or less: never."""
        return max(
            later[2] - earlier[2] - burst - rate * (later[0] - earlier[0])
            for place, earlier in enumerate(self.taken)
            for later in self.taken[place:]
        )
