"""What comes before all else, as whoever started the daemon: sockets are bound or adopted, rights given up.

One thread, no event loop yet. Knows nothing of requests.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import socket
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imds_proxy.config import Address, Config
from imds_proxy.intercept.libnftables import LowDescriptor
from imds_proxy.server.adoption import CannotListen, listening_sockets, redirected_sockets, release
from imds_proxy.server.attribution import look_before_they_leave
from imds_proxy.server.fdstore import DescriptorStore
from imds_proxy.server.notify import Notifier, inherited, watchdog_interval
from imds_proxy.server.privileges import RESERVED, Capability, account_of, drop, hand_over

if TYPE_CHECKING:
    from imds_proxy.server.workers.crew import Ground

_SPARE_FILES = 3584  # three for each process that is remembered as a caller, by its socket or by its note
_PR_SET_DUMPABLE = 4

_CONFIGURATION_REFUSED = 78

Notice = tuple[str, str]
"""The slug of an event, and its sentence."""


class CannotStart(Exception):
    """Why there is no daemon: an event's slug and sentence, and the exit code."""

    def __init__(self, slug: str, sentence: str, code: int = 1) -> None:
        super().__init__(sentence)
        self.notice: Notice = (slug, sentence)
        self.code = code


@dataclass(frozen=True, slots=True)
class Launched:
    """What the daemon begins with. `redirected` has a socket, or why there is none, for each
    `intercept.address`; `watchdog` in seconds; `notices` are to be logged; `ground` is what workers stand on,
    where there are to be some."""

    sockets: list[socket.socket]
    redirected: dict[Address, socket.socket | OSError]
    low_descriptor: LowDescriptor
    store: DescriptorStore
    notifier: Notifier
    watchdog: float | None
    notices: list[Notice]
    ground: Ground | None

    def release(self) -> None:
        """No other run follows: the sockets stop to listen with this process, and where it served a copy at
        once."""
        redirected = [one for one in self.redirected.values() if isinstance(one, socket.socket)]
        release([*self.sockets, *redirected], self.store)
        for one in redirected:
            one.close()


def launch(config: Config, environment: MutableMapping[str, str]) -> Launched:
    """Sockets, then no right that is not needed. Raises CannotStart."""
    low_descriptor = LowDescriptor()  # before any socket
    notices: list[Notice] = []
    notifier = Notifier.of_environment(environment)
    store = DescriptorStore(notifier, inherited(environment, os.getpid()))
    watchdog = watchdog_interval(environment, os.getpid())
    _raise_file_limit(config, notices)
    look_before_they_leave()
    try:
        redirected = redirected_sockets(config.intercept.address, config.hop_limit, store)
        sockets = listening_sockets(config.listen, config.hop_limit, store)
    except CannotListen as error:
        raise CannotStart("cannot-listen", str(error)) from None
    _give_up_rights(config, notices)
    _keep_secrets_in_memory()  # after that: another user is another process to the kernel
    listening = [*sockets, *(one for one in redirected.values() if isinstance(one, socket.socket))]
    ground = _ground(config.workers, listening, notices)
    return Launched(sockets, redirected, low_descriptor, store, notifier, watchdog, notices, ground)


def wanted(config: Config) -> frozenset[Capability]:
    """The capabilities that the daemon uses once it listens."""
    # Whose socket, and which file /proc/PID/exe is; /proc/PID/fd is closed even to those who may trace.
    capabilities = {Capability.SYS_PTRACE, Capability.DAC_READ_SEARCH}
    # The redirect and its listener, also when they are asked for later; ctnetlink, for a caller's own port.
    capabilities |= {Capability.NET_ADMIN, Capability.NET_BIND_SERVICE}
    if config.attribution != "procfs":
        # The programs; newer kernels let only tracers ask for the name of who connects.
        capabilities |= {Capability.BPF, Capability.PERFMON}
    if config.pods.networks:
        capabilities.add(Capability.SYS_ADMIN)  # to open a socket in a pod's network namespace
    return frozenset(capabilities)


def _give_up_rights(config: Config, notices: list[Notice]) -> None:
    account = None
    if os.geteuid() == 0:
        try:
            account = account_of(config.user)
        except ValueError as error:
            raise CannotStart("no-such-user", str(error), _CONFIGURATION_REFUSED) from None
        if account is None:
            notices.append(
                (
                    "runs-as-root",
                    f"there is no user {RESERVED}: the daemon stays root, without the capabilities that it "
                    "does not need; make that user, or name one (user)",
                )
            )
        else:
            for directory, mode in ((config.state, 0o700), (config.admin.socket.parent, 0o755)):
                with contextlib.suppress(OSError):  # whoever needs it says so when it cannot be used
                    hand_over(directory, account, mode)
    try:
        drop(account, wanted(config))
    except OSError as error:
        why = error.strerror or str(error)
        raise CannotStart("cannot-drop", f"the daemon cannot give up its rights: {why}") from None


def _ground(workers: int, listening: list[socket.socket], notices: list[Notice]) -> Ground | None:
    """It forks, so it is the last of all."""
    if workers == 1:
        return None
    from imds_proxy.server.workers.crew import Ground  # a daemon alone does not load it

    try:
        return Ground(workers, listening)
    except OSError as error:
        why = error.strerror or str(error)
        notices.append(("no-workers", f"no worker can be begun ({why}): the daemon serves alone"))
        return None


def _keep_secrets_in_memory() -> None:
    """No core dump may hold tokens or credentials, and no process of the same user may trace this one."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # linux/prctl.h; the limit alone spares pipes


def _raise_file_limit(config: Config, notices: list[Notice]) -> None:
    needed = config.limits.connections + config.upstream.connections + _SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed:
        possible = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, possible), hard))
        if possible < needed:
            notices.append(
                (
                    "few-open-files",
                    f"the limit of open files is {possible}; limits.connections would need {needed}",
                )
            )
