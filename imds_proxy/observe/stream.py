"""The bytes of one direction of a connection, in their order, from segments in any. Pure and bounded."""

from __future__ import annotations

_WRAP = 1 << 32
_HALF = 1 << 31
_MOST = 256 * 1024  # bytes, and
_MOST_SEGMENTS = 64  # of them, that wait for what comes before
_NOTHING = b""


class Stream:
    """Puts segments together. `lost`: bytes are missing, and nothing more is given."""

    def __init__(self) -> None:
        self._next: int | None = None
        self._waiting: dict[int, bytes] = {}
        self.lost = False

    def begin(self, sequence: int) -> None:
        """The SYN's number: the first byte has the next one."""
        self._next = (sequence + 1) % _WRAP

    def is_at(self, sequence: int) -> bool:
        """Whether that SYN is its own, sent again, before any byte."""
        return self._next is None or self._next == (sequence + 1) % _WRAP

    def feed(self, sequence: int, payload: bytes) -> bytes:
        """The bytes that are in order now. Without a SYN (the connection was there before us) it begins with
        the first segment."""
        if self.lost or not payload:
            return _NOTHING
        if self._next is None:
            self._next = sequence
        self._waiting[sequence] = max(self._waiting.get(sequence, _NOTHING), payload, key=len)
        out = bytearray()
        while (piece := self._take()) is not None:
            out += piece
        if len(self._waiting) > _MOST_SEGMENTS or sum(map(len, self._waiting.values())) > _MOST:
            self._waiting.clear()
            self.lost = True
        return bytes(out)

    def _take(self) -> bytes | None:
        if self._next is None:
            return None
        for sequence in list(self._waiting):
            ahead = (sequence - self._next) % _WRAP
            if ahead and ahead < _HALF:
                continue
            payload = self._waiting.pop(sequence)
            known = (self._next - sequence) % _WRAP  # sent again, the first of it or all
            if known < len(payload):
                self._next = (sequence + len(payload)) % _WRAP
                return payload[known:]
        return None
