"""Our tables in this network namespace as the kernel has them, whoever made them; and their removal.

For who is not the daemon: `intercept status` and `down` without one, the removal of a package, `doctor`.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from dataclasses import dataclass

from imds_proxy.intercept.libnftables import Nftables, NftError
from imds_proxy.intercept.ruleset import PREFIX, removal


@dataclass(frozen=True, slots=True)
class StandingTable:
    """`owned`: a running process has it, and nobody else can remove it. `switched`: its lease is on, so calls
    are redirected; else they are refused where `closed`, and go to the service where not."""

    name: str
    owned: bool
    switched: bool
    closed: bool


def standing_tables(nft: Nftables) -> list[StandingTable]:
    """All of ours. Raises NftError."""
    found = []
    for line in nft.run("list tables inet").splitlines():
        name = line.rpartition(" ")[2]
        if not name.startswith(PREFIX):
            continue
        try:
            sets, _, chains = nft.run(f"list table inet {name}").partition("\tchain ")
        except NftError as error:
            if error.code == errno.ENOENT:  # it went meanwhile
                continue
            raise
        found.append(
            StandingTable(
                name, "flags owner" in sets, "elements" in sets, "chain refuse " in "\tchain " + chains
            )
        )
    return found


def remove_standing(nft: Nftables) -> list[StandingTable]:
    """Removes what can be; what is left belongs to running processes. Raises NftError."""
    for table in standing_tables(nft):
        if not table.owned:
            with suppress(NftError):
                nft.run(removal(table.name))
    return standing_tables(nft)
