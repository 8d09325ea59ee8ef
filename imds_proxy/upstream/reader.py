"""Reads of the real service: rebuilt from the canonical target, judged, retried once for a new token.

Knows nothing of who asks; what it returns is the service's own answer or a Refused.
"""

from __future__ import annotations

from collections.abc import Callable

from imds_proxy.errors import TOKEN_REJECTED, UPSTREAM_FOREIGN, UPSTREAM_REDIRECT, Refused
from imds_proxy.protocol.profile import ItemClass, Profile
from imds_proxy.protocol.responses import Answer
from imds_proxy.protocol.target import Target, canonical_target
from imds_proxy.upstream.exchange import UpstreamAnswer
from imds_proxy.upstream.flight import follow
from imds_proxy.upstream.pool import Pool
from imds_proxy.upstream.tokens import TokenKeeper

Headers = tuple[tuple[bytes, bytes], ...]
_PAGE_STARTS = (b"<!doctype html", b"<html")
_FREE_FORM = (ItemClass.USER_DATA, ItemClass.UNKNOWN)


class ServiceReader:
    """GETs on the real service."""

    def __init__(self, pool: Pool, keeper: TokenKeeper, profile: Profile, headers: Headers) -> None:
        self._pool, self._keeper, self._profile, self._headers = pool, keeper, profile, headers
        self._last: tuple[str, Headers] = ("", ())

    async def read(self, target: Target, item: ItemClass, allow: Callable[[Target], bool]) -> Answer:
        """The item, with the proxy's own token; a refused token is renewed and the call repeated once.

        The turn for the first call is the caller's, taken before; further ones are the proxy's own. `allow`
        is asked before a redirect by a trailing slash is resolved. Raises Refused.
        """
        token = await self._keeper.get()
        reply = await self._get(target, token, paid=True)
        return await self._accepted(reply, token, target, item, allow)

    @property
    def ready(self) -> bool:
        """Whether a read would go out at once: a token and a connection are there."""
        return self._pool.ready and self._keeper.held() is not None

    def ask(
        self,
        target: Target,
        item: ItemClass,
        allow: Callable[[Target], bool],
        told: Callable[[Answer | Exception], None],
    ) -> None:
        """The same at once and without a task, while `ready`; `told` gets what `read` would return or
        raise."""
        token = self._keeper.held()
        if token is None:
            raise AssertionError("asked while not ready")

        def over(reply: UpstreamAnswer | Exception) -> None:
            if isinstance(reply, Exception):
                told(reply)
            elif 300 <= reply.answer.status < 404:
                follow(self._accepted(reply, token, target, item, allow), told)
            else:
                try:
                    answer = _judged(reply, item)
                except Refused as error:
                    told(error)
                else:
                    told(answer)

        self._pool.ask(target.text, self._with(token), over)

    async def _accepted(
        self,
        reply: UpstreamAnswer,
        token: str,
        target: Target,
        item: ItemClass,
        allow: Callable[[Target], bool],
    ) -> Answer:
        """The answer, after a refused token or a redirect that of another call. Raises Refused."""
        if reply.answer.status in (401, 403):
            if self._keeper.reject(token):
                reply = await self._get(target, await self._keeper.get())
            if reply.answer.status == 401:
                # A 401 speaks of our token, which is never the caller's fault; a 403 may speak of the item.
                raise Refused(TOKEN_REJECTED)
        elif 300 <= reply.answer.status < 400:
            target = self._slash_twin(target, reply)
            if not allow(target):
                raise Refused(UPSTREAM_REDIRECT, "to an item that the caller may not read")
            reply = await self._get(target, token)
        return _judged(reply, item)

    async def read_with(self, target: Target, item: ItemClass, token: str) -> Answer:
        """The item with a caller's own token: the service judges it. Raises Refused."""
        return _judged(await self._get(target, token), item)

    async def forward(self, method: str, target: Target, item: ItemClass, headers: Headers) -> Answer:
        """Passthrough: the call with the caller's own evidence and token headers. Raises Refused."""
        if method == "PUT":
            reply = await self._pool.put(target.text, (*self._headers, *headers, (b"Content-Length", b"0")))
        else:
            reply = await self._pool.get("GET", target.text, (*self._headers, *headers), paid=True)
        return _judged(reply, item)

    async def _get(self, target: Target, token: str, *, paid: bool = False) -> UpstreamAnswer:
        return await self._pool.get("GET", target.text, self._with(token), paid=paid)

    def _with(self, token: str) -> Headers:
        if token != self._last[0]:
            headers = (*self._headers, (self._profile.token_header, token.encode("latin-1")))
            self._last = token, headers
        return self._last[1]

    def _slash_twin(self, target: Target, reply: UpstreamAnswer) -> Target:
        """The target of a redirect that differs by a trailing slash only. Raises Refused for any other."""
        place = reply.location or b""
        host = next(value for name, value in self._headers if name == b"Host")
        for prefix in (b"http://" + host, b"http://" + host + b":80"):
            if place.startswith(prefix + b"/"):
                place = place[len(prefix) :]
        try:
            twin = canonical_target(place)
        except Refused:
            raise Refused(UPSTREAM_REDIRECT) from None
        same = twin.path.rstrip("/") == target.path.rstrip("/") and twin.query == target.query
        if not same or twin.path == target.path:
            raise Refused(UPSTREAM_REDIRECT)
        return twin


def _judged(reply: UpstreamAnswer, item: ItemClass) -> Answer:
    """The answer, if it can be the metadata service's. Raises Refused (502)."""
    answer = reply.answer
    if 300 <= answer.status < 400:
        raise Refused(UPSTREAM_REDIRECT)
    if reply.encoding not in (None, b"identity"):
        raise Refused(UPSTREAM_FOREIGN, "an encoding that was not asked for")
    start = answer.body[:64].lstrip().lower()
    if answer.status == 200 and item not in _FREE_FORM and start.startswith(_PAGE_STARTS):
        raise Refused(UPSTREAM_FOREIGN, "a web page in the place of an item")
    return answer
