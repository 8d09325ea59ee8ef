from __future__ import annotations

from imds_proxy.clients.findings import Finding


def test_a_finding_without_a_fix_asks_for_no_change() -> None:
    assert Finding("probe", "it reads no credentials").fix is None
