"""Whatever bytes a caller sends: never a 5xx, never an upstream target that policy did not see."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imds_proxy.protocol.request import Request
from imds_proxy.server.build import Daemon
from recorded import recorded_service, reply
from served import served

TARGETS = st.one_of(
    st.sampled_from(
        [
            b"/latest/meta-data/mac",
            b"//latest//meta-data/%6dac",
            b"/latest/meta-data/ram/security-credentials/../x",
            b"/latest/%2e%2e/user-data",
            b"/latest/user-data;x=y",
            b"/latest/user-data%00",
            b"http://100.100.100.200/latest/",
            b"*",
            b"/latest/dynamic/instance-identity/pkcs7?audience=a%20b",
            b"/latest/api/token",
        ]
    ),
    st.binary(min_size=1, max_size=30).map(lambda raw: b"/" + raw),
)
HEADERS = st.sampled_from(
    [
        b"Host: 100.100.100.200",
        b"Host: evil.example",
        b"Content-Length: 0",
        b"Content-Length: 5",
        b"Transfer-Encoding: chunked",
        b"X-Forwarded-For: 1.2.3.4",
        b"X-aliyun-ecs-metadata-token: abc",
        b"X-aliyun-ecs-metadata-token;",
        b"X-aliyun-ecs-metadata-token-ttl-seconds: 60",
        b"Connection: close",
        b"Connection: keep-alive, X-aliyun-ecs-metadata-token",
        b"Expect: 100-continue",
        b" folded",
        b"No-Colon",
        b"\x00: \xff",
    ]
)
STRUCTURED = st.builds(
    lambda method, target, version, headers, end, tail: (
        method + b" " + target + b" " + version + end + end.join(headers) + end + end + tail
    ),
    st.sampled_from([b"GET", b"HEAD", b"PUT", b"get", b"POST", b"CONNECT", b"TRACE"]),
    TARGETS,
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.1 "]),
    st.lists(HEADERS, max_size=5),
    st.sampled_from([b"\r\n", b"\n"]),
    st.sampled_from([b"", b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"]),
)
PIECES = st.one_of(
    STRUCTURED, st.binary(max_size=200), st.lists(STRUCTURED, min_size=2, max_size=4).map(b"".join)
)


@dataclass
class Lab:
    """A daemon on a loop that the examples share; notes what policy saw and what the service got."""

    loop: asyncio.AbstractEventLoop
    port: int
    daemon: Daemon
    seen: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def send(self, pieces: list[bytes]) -> bytes:
        async def talk() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                for piece in pieces:
                    writer.write(piece)
                    await asyncio.sleep(0)
                writer.write_eof()
                return await asyncio.wait_for(reader.read(), 10)
            except OSError:  # closed on us while we were still sending
                return b""
            finally:
                writer.transport.abort()

        return self.loop.run_until_complete(talk())


@pytest.fixture
def lab() -> Iterator[Lab]:
    loop = asyncio.new_event_loop()
    asked: list[str] = []

    async def noting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            method, target, _ = head.split(b"\r\n")[0].decode("latin-1").split(" ")
            if method != "PUT":
                asked.append(target)
            writer.write(reply(b"tok==" if method == "PUT" else b"x"))

    service_context = recorded_service(noting)
    service = loop.run_until_complete(service_context.__aenter__())
    daemon_context = served(service)
    port, daemon = loop.run_until_complete(daemon_context.__aenter__())
    lab = Lab(loop, port, daemon, asked=asked)
    decide = type(daemon.shared.service.policy).decide

    def noting_decide(policy, request: Request, *rest, **more):  # type: ignore[no-untyped-def]
        lab.seen.append(request.target.text)
        return decide(policy, request, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(daemon.shared.service.policy), "decide", noting_decide)
        yield lab
    loop.run_until_complete(daemon_context.__aexit__(None, None, None))
    loop.run_until_complete(service_context.__aexit__(None, None, None))
    loop.close()


@given(raw=PIECES, cuts=st.lists(st.integers(0, 400), max_size=6))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_make_a_5xx_or_reach_the_service_unseen(lab: Lab, raw: bytes, cuts: list[int]) -> None:
    lab.seen.clear()
    lab.asked.clear()
    edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    answer = lab.send([raw[a:b] for a, b in itertools.pairwise(edges)])
    for line in answer.split(b"\r\n"):
        if line.startswith(b"HTTP/1.1 "):
            assert int(line.split()[1]) < 500, answer
    probe = "/latest/meta-data/instance-id"  # the probe of made-up tokens
    assert set(lab.asked) - {probe} <= set(lab.seen)


def test_a_head_split_at_every_byte_is_answered_the_same(lab: Lab) -> None:
    raw = b"GET /latest/meta-data/mac HTTP/1.1\r\nHost: 100.100.100.200\r\nConnection: close\r\n\r\n"
    whole = lab.send([raw])
    assert whole.startswith(b"HTTP/1.1 200")
    for cut in range(1, len(raw)):
        assert lab.send([raw[:cut], raw[cut:]]) == whole
