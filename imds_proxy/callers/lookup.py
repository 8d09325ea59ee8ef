"""What the kernel says of a connection just accepted: whose its other end is. Knows nothing of processes.

The other end is in our network namespace, or in that of a pod: then it is asked for there.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import replace

from imds_proxy.callers.connects import ConnectNote, ConnectNotes
from imds_proxy.callers.conntrack import Conntrack
from imds_proxy.callers.podnet import PodNetworks
from imds_proxy.callers.redirect import endpoint_of, local_endpoint, original_destination
from imds_proxy.callers.sockdiag import Endpoint, SockDiag, SocketOwner
from imds_proxy.callers.ticket import Ticket

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

_NO_SOCKET = "no live socket on this machine has this connection"
_NO_NETWORK = "no network namespace of this machine alone has that address"


class ConnectionLookup:
    """Asks sock_diag, connection tracking and the notes of connects; closes all that it is given.

    Thread-safe. `diag` None: nothing can be told. `networks` are those whose callers are looked for too.
    """

    def __init__(
        self, diag: SockDiag | None, notes: ConnectNotes | None, networks: PodNetworks | None
    ) -> None:
        self._diag, self._notes, self._networks = diag, notes, networks
        self._conntrack = Conntrack()

    def close(self) -> None:
        """Closes the netlink sockets and maps."""
        for one in (self._diag, self._notes, self._conntrack, self._networks):
            if one is not None:
                one.close()

    def look_up(self, accepted: socket.socket, peer: tuple[object, ...] | None) -> Ticket:
        """Asks the kernel who owns the other end, 10-20 µs. To be called at accept, before anything is read.

        `peer` is the peer's address as accept() gave it; without it the caller is unresolved.
        """
        now = int(time.clock_gettime(time.CLOCK_BOOTTIME) * TICKS_PER_SECOND)
        client = endpoint_of(peer)
        if client is None:
            return Ticket(None, None, now, "no peer address")
        local = local_endpoint(accepted)
        if local is None:
            return Ticket(None, client.host, now, "the connection is gone")
        ticket = self.look_up_ends(client, original_destination(accepted, local) or local)
        if ticket.owner is None and (original := self._conntrack.original(client, local)) is not None:
            ticket = self.look_up_ends(*original)  # the redirect gave the client another port
        return ticket

    def look_up_ends(self, client: Endpoint, destination: Endpoint) -> Ticket:
        """The same for a connection between these two, which need not be one of ours."""
        now = int(time.clock_gettime(time.CLOCK_BOOTTIME) * TICKS_PER_SECOND)
        ends, origin = (client, destination), client.host
        if self._diag is None:
            return Ticket(None, origin, now, "sock_diag is not available")
        if self._notes is not None and (note := self._notes.of(*ends)) is not None:
            return Ticket(_noted(note), origin, now, None, note, ends, self._diag)
        owner = self._diag.owner(*ends)
        if owner is not None:
            return Ticket(owner, origin, now)
        if self._networks is None:
            return Ticket(None, origin, now, _NO_SOCKET)
        ticket = Ticket(None, origin, now, _NO_NETWORK, ends=ends, elsewhere=True)
        return self._asked_there(ticket, self._networks) if self._networks.fresh else ticket

    def located(self, ticket: Ticket) -> Ticket:
        """The ticket, where it has no owner yet and may have one elsewhere: after a look at all processes.

        Blocks: for a thread.
        """
        if ticket.owner is not None or not ticket.elsewhere or self._networks is None:
            return ticket
        self._networks.look(self._networks.now())
        return self._asked_there(ticket, self._networks)

    def held(self, accepted: socket.socket, peer: tuple[object, ...] | None) -> SocketOwner | None:
        """The other end as long as anybody holds it, in whatever state."""
        client, local = endpoint_of(peer), local_endpoint(accepted)
        if client is None or local is None or self._diag is None:
            return None
        ends = client, original_destination(accepted, local) or local
        owner = self._diag.held(*ends)
        if owner is None and (original := self._conntrack.original(client, local)) is not None:
            ends = original
            owner = self._diag.held(*ends)
        if owner is None and self._networks is not None:
            network = self._networks.owner(ends[0].address)
            owner = network.diag.held(*ends) if network is not None else None
        return owner

    def _asked_there(self, ticket: Ticket, networks: PodNetworks) -> Ticket:
        """The ticket with the owner of the socket in the one namespace that has the client's address."""
        assert ticket.ends is not None
        network = networks.owner(ticket.ends[0].address)
        if network is None:
            return replace(ticket, why=_NO_NETWORK)
        # A note alone would not do: what is not alive there can have been sent by others in its name.
        owner = network.diag.owner(*ticket.ends)
        if owner is None:
            return replace(ticket, why=_NO_SOCKET)
        note = None
        if self._notes is not None and network.cookie is not None:
            note = self._notes.of(*ticket.ends, network.cookie)
        owner = owner if note is None else _noted(note)
        return replace(ticket, owner=owner, why=None, note=note, diag=network.diag)


def _noted(note: ConnectNote) -> SocketOwner:
    return SocketOwner(note.uid, 0, note.cgroup_id)
