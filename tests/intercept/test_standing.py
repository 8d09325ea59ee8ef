from __future__ import annotations

from dataclasses import replace

import pytest

from imds_proxy.intercept.libnftables import Nftables
from imds_proxy.intercept.nftables import NftablesRedirect
from imds_proxy.intercept.standing import StandingTable, remove_standing, standing_tables
from netns import nft
from plans import PLAN

pytestmark = pytest.mark.usefixtures("network")


def test_tables_of_ours_are_found_among_others_and_removed() -> None:
    nft("add table inet firewalld; add table ip nat; add table ip imds_proxy")
    before = nft("list ruleset")
    closed = NftablesRedirect(replace(PLAN, closed=True, lease=None))
    closed.up()
    closed.release()
    library = Nftables()
    (table,) = standing_tables(library)
    assert table == StandingTable("imds_proxy", owned=False, switched=True, closed=True)
    assert remove_standing(library) == []
    assert nft("list ruleset") == before
    library.close()


def test_a_table_that_a_process_owns_is_left_and_told() -> None:
    redirect = NftablesRedirect(PLAN)
    redirect.up()
    library = Nftables()
    (table,) = remove_standing(library)
    assert (table.name, table.owned, table.switched, table.closed) == (
        redirect.status().name,
        True,
        True,
        False,
    )
    redirect.down()
    assert standing_tables(library) == []
    library.close()


def test_a_lease_that_is_not_on_is_told() -> None:
    redirect = NftablesRedirect(replace(PLAN, owner_table=False))
    redirect.up()
    nft("flush set inet imds_proxy switch4; flush set inet imds_proxy switch6")
    library = Nftables()
    assert [table.switched for table in standing_tables(library)] == [False]
    library.close()
    redirect.down()
