"""`imds-proxy watch` on the daemon's side: an answer when an item is no longer what it was.

However many watch, an item is asked for once in its cache time.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from imds_proxy.errors import Refused
from imds_proxy.protocol.items import ItemClassifier
from imds_proxy.protocol.profile import ItemClass
from imds_proxy.protocol.responses import Answer
from imds_proxy.protocol.target import canonical_target
from imds_proxy.upstream.cache import AnswerCache
from imds_proxy.upstream.gate import OURS

_INTERVAL = 1.0  # seconds between looks into the cache
_LONGEST = 25.0  # seconds of one call; whoever watches calls again
_MOST = 64  # that watch at a time
_DEADLINE = 5.0  # seconds for one answer of the service
# A value is printed, and given to programs: never a secret.
_SECRET = frozenset(
    {ItemClass.CREDENTIALS, ItemClass.NEVER, ItemClass.TOKEN, ItemClass.AGGREGATE, ItemClass.IDENTITY}
)


class Watching:
    """Answers the admin command `watch`. `clock` gives seconds, monotonic."""

    def __init__(self, cache: AnswerCache, classifier: ItemClassifier, clock: Callable[[], float]) -> None:
        self._cache, self._classifier, self._clock = cache, classifier, clock
        self._watching = 0

    async def watch(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """`asked` has `path`, and `known`, the digest of the last value (none: whatever it is is news).

        The answer: `ok`, then `changed`, with `status`, `value` and `digest` where it did; or `errors`.
        """
        path, known = asked.get("path"), asked.get("known")
        try:
            if not isinstance(path, str) or not path:
                raise ValueError(path)
            target = canonical_target((path if path.startswith("/") else f"/latest/{path}").encode("ascii"))
        except (Refused, ValueError):
            return _wrong("`path` is the path of an item, such as meta-data/instance/spot/termination-time")
        item = self._classifier.classify(target)
        if item in _SECRET:
            return _wrong(f"{target.path} is secret or of one use; it cannot be watched")
        if self._watching >= _MOST:
            return _wrong(f"{_MOST} are watching already")
        self._watching += 1
        try:
            until = self._clock() + _LONGEST
            while self._clock() < until:
                try:
                    served = await self._cache.read(
                        target,
                        item,
                        OURS,
                        self._clock() + _DEADLINE,
                        lambda twin: twin.segments == target.segments,
                    )
                except Refused:
                    pass  # that it cannot be told now is no change
                else:
                    found = _state(served.answer)
                    if not served.stale and found is not None and found["digest"] != known:
                        return {"ok": True, "errors": [], "changed": True, **found}
                await asyncio.sleep(_INTERVAL)
        finally:
            self._watching -= 1
        return {"ok": True, "errors": [], "changed": False}


def _state(answer: Answer) -> dict[str, Any] | None:
    """The value as text, where it is there (200) or surely is not (404)."""
    if answer.status not in (200, 404):
        return None
    body = answer.body if answer.status == 200 else b""
    digest = hashlib.sha256(b"%d %s" % (answer.status, body)).hexdigest()
    return {"status": answer.status, "value": body.decode("utf-8", "replace"), "digest": digest}


def _wrong(sentence: str) -> dict[str, Any]:
    return {"ok": False, "errors": [sentence]}
