"""The page's policy allows its own style sheet and nothing else."""

from __future__ import annotations

import base64
import hashlib

from imds_proxy.ledger.pagestyle import POLICY, STYLE


def test_the_policy_names_this_very_style_and_no_other_source() -> None:
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in POLICY
    assert "default-src 'none'" in POLICY
    assert "unsafe" not in POLICY


def test_the_style_fetches_nothing_and_has_both_colour_schemes() -> None:
    assert "url(" not in STYLE
    assert "@import" not in STYLE
    assert "prefers-color-scheme: dark" in STYLE
