"""A caller's request as a value, read by h11 and remembered by the exact bytes of its head.

h11 is the only parser; the scan of the raw head refuses what h11 is lenient about, and interprets
nothing. Knows nothing of modes, callers or sockets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Protocol

import h11

from imds_proxy.errors import (
    BAD_REQUEST,
    DUPLICATE_HEADER,
    FOLDED_HEADER,
    FRAMING,
    HEAD_TOO_LARGE,
    HOP_TOKEN,
    METHOD,
    METHOD_OVERRIDE,
    TARGET_LENGTH,
    TARGET_QUERY,
    TOKEN_PATH,
    Refused,
)
from imds_proxy.protocol.items import ItemClassifier
from imds_proxy.protocol.profile import ItemClass, Profile
from imds_proxy.protocol.target import Target, canonical_target

_MAX_HEADERS = 100
_MEMO_HEAD = 2048  # bytes; larger heads are parsed each time
_MAX_AGENT = 256  # bytes
_LONGEST_METHOD = 16  # characters of one that is shown
_EMPTY_CHUNKED = b"0\r\n\r\n"
_FOLD = re.compile(rb"\n[ \t]")
_BARE_LF = re.compile(rb"(?<!\r)\n")
_LENGTHS = re.compile(rb"(?i)\ncontent-length[ \t]*:([^\n]*)")
_OVERRIDES = frozenset({b"x-http-method-override", b"x-http-method", b"x-method-override"})


@dataclass(frozen=True, slots=True)
class Request:
    """One well-formed request. `token` and `ttl` are header values (None: absent; an empty token: None).

    `host` is in lower case, None when absent. `relayed` and `browser` hold the evidence that was found
    (header names, or "user-agent" for `browser_agent`), `evidence` those headers as they came. `agent` is
    the beginning of User-Agent as it came: a claim, of any characters.
    """

    method: str
    target: Target
    item: ItemClass
    host: bytes | None
    token: str | None = field(repr=False)
    ttl: bytes | None
    relayed: bytes | None
    browser: bytes | None
    browser_agent: bool
    evidence: tuple[tuple[bytes, bytes], ...]
    keep_alive: bool
    is_put: bool
    agent: str = ""


class Signal(Enum):
    """What a reader says when it has no request to give."""

    NEED_DATA = "need-data"
    SEND_CONTINUE = "send-continue"


@dataclass(frozen=True, slots=True)
class HeadRules:
    """What a head is judged by: the provider and the size limits (bytes)."""

    profile: Profile
    classifier: ItemClassifier
    max_head: int
    max_target: int


class HeadMemo(Protocol):
    """What h11 said of complete heads without a body, by their exact bytes."""

    def get(self, head: bytes, /) -> Request | None:
        """The request, None where these bytes are not known."""

    def __setitem__(self, head: bytes, request: Request, /) -> None: ...


class RequestReader:
    """Bytes in, requests out, for one connection. Give it bytes with `feed`, take with `next`.

    `memo` may be shared. `known` is the head of the last request, if it was in the memo.
    After a request that ends the connection, or a refusal, nothing more is read.
    """

    def __init__(self, rules: HeadRules, memo: HeadMemo) -> None:
        self._rules = rules
        self.memo = memo
        self._buffer = bytearray()
        self._parser: h11.Connection | None = None
        self._fed = 0
        self._pending: Request | None = None  # a PUT whose chunked body is still to come
        self._continue_due = False
        self.ended = False
        self.known: bytes | None = None

    @property
    def buffered(self) -> int:
        """Bytes received and not yet part of a request."""
        return len(self._buffer)

    @property
    def partial(self) -> bool:
        """Whether a request has begun to come and is not whole."""
        return bool(self._buffer or self._pending)

    def feed(self, data: bytes) -> None:
        """Takes bytes from the caller."""
        if not self.ended:
            self._buffer += data

    def next(self) -> Request | Signal:
        """The next request, or what is needed for it. Raises Refused; the connection is then over."""
        if self.ended or not self.partial:
            return Signal.NEED_DATA
        try:
            request = self._read_body() if self._pending else self._read_head()
        except Refused:
            self._end()
            raise
        except h11.RemoteProtocolError as error:
            self._end()
            raise Refused(BAD_REQUEST, str(error)) from None
        if isinstance(request, Request) and not request.keep_alive:
            self._end()
        return request

    def _end(self) -> None:
        self.ended = True
        self._buffer.clear()
        self._parser = None
        self._pending = None

    def _read_head(self) -> Request | Signal:
        if self._parser is None:
            end = self._buffer.find(b"\r\n\r\n")
            self.known = None
            if end >= 0:
                head = bytes(self._buffer[: end + 4])
                known = self.memo.get(head)
                if known is not None:
                    del self._buffer[: end + 4]
                    self.known = head
                    return known
            self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=self._rules.max_head)
            self._fed = 0
            stop = end + 4 if end >= 0 else len(self._buffer)
        else:
            stop = len(self._buffer)
        if stop == self._fed:  # nothing new, and h11 would read no bytes as the end of the connection
            return Signal.NEED_DATA
        # h11 is given one head where its end is plain, so that a pipeline is not copied once a request.
        self._parser.receive_data(bytes(self._buffer[self._fed : stop]))
        self._fed = stop
        try:
            event = self._parser.next_event()
        except h11.RemoteProtocolError as error:
            if self._fed > self._rules.max_head and error.error_status_hint == 431:
                raise Refused(HEAD_TOO_LARGE if b"\n" in self._buffer else TARGET_LENGTH) from None
            raise
        if event is h11.NEED_DATA:
            return Signal.NEED_DATA
        if not isinstance(event, h11.Request):
            raise Refused(BAD_REQUEST, "no request")
        return self._accept_head(event, self._parser)

    def _accept_head(self, event: h11.Request, parser: h11.Connection) -> Request | Signal:
        size = self._fed - len(parser.trailing_data[0])
        head = bytes(self._buffer[:size])
        if size > self._rules.max_head:
            raise Refused(HEAD_TOO_LARGE)
        _scan(head)
        request, chunked = _judge(event, self._rules)
        bare_lf = _BARE_LF.search(head) is not None
        if bare_lf:
            request = replace(request, keep_alive=False)
        del self._buffer[:size]
        if chunked:
            # What h11 has already been given of the body stays with it.
            self._fed -= size
            self._pending = request
            self._continue_due = parser.they_are_waiting_for_100_continue
            return self._read_body()
        self._parser = None
        if size <= _MEMO_HEAD and not bare_lf:
            self.memo[head] = request
        return request

    def _read_body(self) -> Request | Signal:
        if self._continue_due and not self._buffer:
            self._continue_due = False
            return Signal.SEND_CONTINUE
        body = bytes(self._buffer[: len(_EMPTY_CHUNKED)])
        if not _EMPTY_CHUNKED.startswith(body):
            raise Refused(FRAMING, "a chunked body that is not empty")
        if len(body) < len(_EMPTY_CHUNKED):
            return Signal.NEED_DATA
        parser, request = self._parser, self._pending
        if parser is None or request is None:
            raise AssertionError("a body is read after its head")
        parser.receive_data(body[self._fed :])
        event = parser.next_event()
        if not isinstance(event, h11.EndOfMessage):
            raise Refused(FRAMING, "a chunked body that is not empty")
        del self._buffer[: len(_EMPTY_CHUNKED)]
        self._parser = self._pending = None
        return request


def _scan(head: bytes) -> None:
    """Refuses what h11 lets pass in silence: folded lines, merged lengths."""
    if _FOLD.search(head):
        raise Refused(FOLDED_HEADER)
    lengths = _LENGTHS.findall(head)
    if len(lengths) > 1 or (lengths and b"," in lengths[0]):
        raise Refused(DUPLICATE_HEADER, "content-length")


def _judge(event: h11.Request, rules: HeadRules) -> tuple[Request, bool]:
    """The request of an h11 event, and whether an (empty) chunked body follows. Raises Refused."""
    profile = rules.profile
    if event.http_version not in (b"1.0", b"1.1"):
        raise Refused(BAD_REQUEST, "HTTP version")
    if len(event.headers) > _MAX_HEADERS:
        raise Refused(HEAD_TOO_LARGE, "number of headers")
    if len(event.target) > rules.max_target:
        raise Refused(TARGET_LENGTH)
    seen: dict[bytes, bytes] = {}
    single = {b"host", b"content-length", b"transfer-encoding", profile.token_header, profile.ttl_header}
    hops: set[bytes] = set()
    for name, value in event.headers:
        if name in single and name in seen:
            raise Refused(DUPLICATE_HEADER, name.decode("ascii"))
        seen[name] = value
        if name == b"connection":
            hops.update(part.strip().lower() for part in value.split(b","))
    if hops & {profile.token_header, profile.ttl_header}:
        raise Refused(HOP_TOKEN)
    if seen.keys() & _OVERRIDES:
        raise Refused(METHOD_OVERRIDE)
    method = event.method.decode("ascii")
    is_put = method == "PUT"
    if not is_put and method not in ("GET", "HEAD"):
        raise Refused(METHOD, method if len(method) <= _LONGEST_METHOD else "")  # else it may be a secret
    target = canonical_target(event.target)
    on_token_path = target.path == profile.token_path
    if is_put and not on_token_path:
        raise Refused(METHOD, "PUT elsewhere than on the token path")
    chunked = _framing(seen, is_put)
    if not is_put and on_token_path:
        raise Refused(TOKEN_PATH)
    if target.query is not None and (is_put or not rules.classifier.takes_query(target)):
        raise Refused(TARGET_QUERY)
    said = seen.get(b"user-agent", b"")
    agent = said.lower()
    evidence = profile.forwarding_headers | profile.browser_headers
    host = seen.get(b"host")
    request = Request(
        method=method,
        target=target,
        item=rules.classifier.classify(target),
        host=None if host is None else host.lower(),
        token=(seen.get(profile.token_header) or b"").decode("latin-1") or None,
        ttl=seen.get(profile.ttl_header),
        relayed=next((name for name in seen if name in profile.forwarding_headers), None),
        browser=next((name for name in seen if name in profile.browser_headers), None),
        browser_agent=agent.startswith(b"mozilla/") and b"powershell" not in agent,
        evidence=tuple((name, value) for name, value in event.headers if name in evidence),
        keep_alive=event.http_version == b"1.1" and b"close" not in hops,
        is_put=is_put,
        agent=said[:_MAX_AGENT].decode("latin-1"),
    )
    return request, chunked


def _framing(seen: dict[bytes, bytes], is_put: bool) -> bool:
    """Whether an empty chunked body follows. Raises Refused for any other body."""
    length, coding = seen.get(b"content-length"), seen.get(b"transfer-encoding")
    if coding is not None and (length is not None or not is_put or coding.lower() != b"chunked"):
        raise Refused(FRAMING)
    if length is not None and int(length) != 0:
        raise Refused(FRAMING, "a body")
    return coding is not None
