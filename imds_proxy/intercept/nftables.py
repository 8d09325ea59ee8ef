"""The redirect by nftables: a table of the daemon's own, removed by the kernel when it dies.

Where the kernel has no owner tables the dead man's switch alone opens the way; with `closed` the table stays.
"""

from __future__ import annotations

import errno
import secrets
from contextlib import suppress

from imds_proxy.intercept.libnftables import Nftables, NftError
from imds_proxy.intercept.redirect import InterceptError, Plan, RedirectStatus
from imds_proxy.intercept.ruleset import PREFIX, opening, removal, renewal, table


class NftablesRedirect:
    """A `Redirect`. The library's socket is open, and the table there, from `up` to `down`."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._nft: Nftables | None = None
        self._name, self._owned = "", False
        self._listing = ""
        self._notes: tuple[str, ...] = ()

    def up(self) -> None:
        """See `Redirect.up`."""
        if self._nft is not None:
            return
        nft = Nftables()
        try:
            self._make(nft)
        except NftError as error:
            nft.close()
            raise refused(error) from None
        self._nft = nft

    def _make(self, nft: Nftables) -> None:
        """The table; one that an earlier run has left is replaced. Raises NftError."""
        self._notes = ()
        if self._plan.owner_table and not self._plan.closed:
            # Nobody else can remove an owned table: each has a name that no other can have.
            name = f"{PREFIX}_{secrets.token_hex(4)}"
            try:
                nft.run(removal(PREFIX) + table(name, self._plan, owned=True))
            except NftError as error:
                if error.code == errno.EPERM:
                    raise
                why = "the kernel (before 5.12) or the library has no owner tables"
                self._notes = (f"{why}: {error}; when the daemon dies its lease must lapse first",)
            else:
                self._name, self._owned = name, True
                return
        nft.run(removal(PREFIX) + table(PREFIX, self._plan, owned=False))
        self._name, self._owned = PREFIX, False
        self._listing = self._list(nft)

    def renew(self) -> str | None:
        """See `Redirect.renew`. Others can remove or change a table that is not owned: it is put back."""
        nft = self._nft
        if nft is None:
            return None
        try:
            if self._plan.lease is not None:
                nft.run(renewal(self._name, self._plan))
            if self._owned or self._list(nft) == self._listing:
                return None
            amiss = "was changed"
        except NftError as error:
            if self._owned:
                raise refused(error) from None
            amiss = "was removed" if error.code == errno.ENOENT else f"cannot be renewed ({error})"
        try:
            self._make(nft)
        except NftError as error:
            raise refused(error) from None
        return f"table inet {PREFIX} {amiss} by another program, and is put back"

    def open_way(self) -> None:
        """See `Redirect.open_way`: without its rules the table is but what keeps translation going."""
        if self._nft is not None:
            try:
                self._nft.run(opening(self._name, self._plan))
            except NftError as error:
                raise refused(error) from None

    def down(self) -> None:
        """See `Redirect.down`."""
        nft = self._nft
        if nft is None:
            return
        try:
            self._remove(nft)
        except NftError as error:
            raise refused(error) from None
        self._close()

    def release(self) -> None:
        """See `Redirect.release`."""
        if self._nft is not None and not self._plan.closed:
            with suppress(NftError):  # an owned table goes with its socket, another one lapses
                self._remove(self._nft)
        self._close()

    def status(self) -> RedirectStatus:
        """See `Redirect.status`."""
        nft = self._nft
        if nft is None:
            return RedirectStatus("nftables", in_force=False)
        try:
            switched, _, chains = nft.run(f"list table inet {self._name}").partition("\tchain ")
        except NftError:
            return RedirectStatus("nftables", in_force=False, name=self._name)
        if not chains or not ("elements" in switched or self._plan.closed):
            return RedirectStatus("nftables", in_force=False, name=self._name, notes=self._notes)
        held_by = "owner-table" if self._owned else "table" if self._plan.closed else "lease"
        return RedirectStatus("nftables", True, held_by, self._name, self._notes)

    def descriptors(self) -> dict[str, int]:
        """See `Redirect.descriptors`: the socket that owns the table."""
        return {"nftables": self._nft.descriptor} if self._nft is not None and self._owned else {}

    def _remove(self, nft: Nftables) -> None:
        # The plain one may be gone; the owned one is there.
        nft.run(f"delete table inet {self._name}\n" if self._owned else removal(self._name))

    def _close(self) -> None:
        if self._nft is not None:
            self._nft.close()
            self._nft = None

    def _list(self, nft: Nftables) -> str:
        """The table's rules, without what changes by itself. Raises NftError."""
        chains = nft.run(f"list table inet {self._name}").partition("\tchain ")[2]
        if not chains:
            raise NftError("the table has no chains")
        return chains


def refused(error: NftError) -> InterceptError:
    """What to tell, and what to do, when the kernel refuses a table."""
    if error.code == errno.EPERM:
        return InterceptError(
            "no-capability",
            "the kernel lets this process make no redirect",
            "it needs CAP_NET_ADMIN in its network namespace",
        )
    return InterceptError(
        "nftables-refused",
        f"the kernel takes no nftables redirect: {error}",
        "it needs nf_tables with NAT in the inet family (Linux 5.2), and nft_fib for forwarded traffic",
    )
