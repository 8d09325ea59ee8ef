"""The emulator as one object: started, stopped and restarted in-process. Knows no command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

from imds_proxy.emulator.connections import Connections
from imds_proxy.emulator.control import ControlListener
from imds_proxy.emulator.counters import Counts
from imds_proxy.emulator.credentials import Issuer
from imds_proxy.emulator.handler import MetadataListener
from imds_proxy.emulator.listener import authority
from imds_proxy.emulator.metadata import MetadataService
from imds_proxy.emulator.settings import Settings
from imds_proxy.emulator.tokens import TokenStore

Address = tuple[str, int]
"""Host (an IP address as text) and port."""


class Emulator:
    """An ECS metadata service on real sockets, in threads; a context manager that starts and stops it.

    `listen`, `control`: where (port 0: any free one, kept over a restart); `control` None: no control
    endpoint. Tokens outlive `stop` and the next `start`, as they do the real service's restarts, unless
    `keep_tokens` is false. `tokens` and `issuer` of another emulator make this one its successor. `log` gets
    a line for each request. Raises CannotListen on start.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        listen: Sequence[Address] = (("127.0.0.1", 0),),
        control: Address | None = None,
        *,
        keep_tokens: bool = True,
        tokens: TokenStore | None = None,
        issuer: Issuer | None = None,
        log: Callable[[str], None] | None = None,
    ) -> None:
        self.service = MetadataService(settings, tokens, issuer)
        self._listen = list(listen)
        self._control = control
        self._keep_tokens = keep_tokens
        self._log = log
        self._connections = Connections()
        self._listeners: list[MetadataListener] = []
        self._control_listener: ControlListener | None = None
        self._control_connections = Connections()

    def start(self) -> Emulator:
        """Listens and serves; returns itself. Connections are accepted when this returns."""
        if self._listeners:
            raise RuntimeError("the emulator is running")
        self._connections, self._control_connections = Connections(), Connections()
        try:
            for address in self._listen:
                self._listeners.append(MetadataListener(address, self._connections, self.service, self._log))
            if self._control is not None:
                self._control_listener = ControlListener(self._control, self._control_connections, self)
                self._control = self._control_listener.address
        except BaseException:
            self.stop()
            raise
        self._listen = [listener.address for listener in self._listeners]
        for listener in self._all_listeners():
            listener.start()
        return self

    def stop(self) -> None:
        """Closes the listening sockets and all connections, in whatever state. Twice is once."""
        for listener in self._all_listeners():
            listener.stop()
        self._listeners, self._control_listener = [], None
        self._connections.close_all()
        self._control_connections.close_all()
        if not self._keep_tokens:
            self.service.tokens.revoke_all()

    def __enter__(self) -> Emulator:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def address(self) -> Address:
        """Where the first listener listens, or did."""
        return self._listen[0]

    @property
    def addresses(self) -> list[Address]:
        """Where each listener listens, or did."""
        return list(self._listen)

    @property
    def control_address(self) -> Address | None:
        """Where the control endpoint listens, None without one."""
        return self._control

    @property
    def url(self) -> str:
        """`http://H:P` of the first listener."""
        return f"http://{authority(self.address)}"

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self.service.settings

    @property
    def tokens(self) -> TokenStore:
        """The live tokens, for a successor."""
        return self.service.tokens

    @property
    def issuer(self) -> Issuer:
        """The maker of credentials, for a successor."""
        return self.service.issuer

    @property
    def open_connections(self) -> int:
        """How many connections to the service are open."""
        return len(self._connections)

    def counters(self) -> Counts:
        """What was counted so far."""
        return self.service.counters.read()

    def state(self) -> dict[str, object]:
        """Counters, live tokens and settings, as the control endpoint shows them."""
        return self.service.state()

    def patch(self, changes: Mapping[str, object] | None = None, /, **settings: object) -> None:
        """Changes settings (a JSON merge patch, RFC 7396), whole or not at all. Raises SettingsError."""
        self.service.patch(settings if changes is None else changes)

    def reset_counters(self) -> None:
        """Counters back to nothing."""
        self.service.counters.reset()

    def revoke_tokens(self) -> None:
        """Ends all tokens: the next request with one gets 401."""
        self.service.tokens.revoke_all()

    def reset_connections(self) -> None:
        """Cuts every open connection of the service by RST; they are gone when this returns."""
        self._connections.reset_all()

    def _all_listeners(self) -> list[MetadataListener | ControlListener]:
        return [*self._listeners, *([self._control_listener] if self._control_listener else [])]
