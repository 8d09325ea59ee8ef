"""What real clients sent, byte for byte: each distinct head, and the conversations they stood in."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FILE = Path(__file__).parent.with_name("captures") / "conversations.json"


@dataclass(frozen=True)
class Sent:
    """One request of a client: when it came and was answered (seconds; None: the client gave up), the
    answer's status, and the kind of session it was, told by who recorded it."""

    head: bytes
    body: bytes
    at: float
    ended: float | None
    status: int | None
    session: str


def _load() -> dict[str, tuple[Sent, ...]]:
    document: dict[str, Any] = json.loads(_FILE.read_text())
    heads = [text.encode("latin-1") for text in document["heads"]]
    return {
        name: tuple(
            Sent(
                head=heads[one["head"]],
                body=one.get("body", "").encode("latin-1"),
                at=one["at"],
                ended=one["ended"],
                status=one["status"],
                session=one["session"],
            )
            for one in requests
        )
        for name, requests in document["conversations"].items()
    }


CONVERSATIONS = _load()
DISTINCT = {(sent.head, sent.body): sent for sent in (s for c in CONVERSATIONS.values() for s in c)}
