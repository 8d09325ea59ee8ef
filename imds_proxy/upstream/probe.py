"""Two small calls to the real service on the proxy's own behalf: is it there, and does it take plain GETs."""

from __future__ import annotations

from collections.abc import Callable

from imds_proxy.protocol.profile import ItemClass
from imds_proxy.protocol.responses import Answer
from imds_proxy.protocol.target import Target
from imds_proxy.upstream.gate import OURS, UpstreamGate
from imds_proxy.upstream.reader import ServiceReader


class ServiceProbe:
    """Asks for one item that every instance has, in the proxy's own turn; `patience` in seconds."""

    def __init__(
        self,
        reader: ServiceReader,
        gate: UpstreamGate,
        item: tuple[Target, ItemClass],
        patience: float,
        clock: Callable[[], float],
    ) -> None:
        self._reader, self._gate, self._item = reader, gate, item
        self._patience, self._clock = patience, clock

    async def with_token(self) -> Answer:
        """As all of the proxy's calls. Raises Refused."""
        await self._turn()
        return await self._reader.read(*self._item, lambda _: False)

    async def plainly(self) -> Answer:
        """As an old client. Raises Refused."""
        await self._turn()
        return await self._reader.forward("GET", *self._item, ())

    async def _turn(self) -> None:
        await self._gate.turn(OURS, self._clock() + self._patience)
