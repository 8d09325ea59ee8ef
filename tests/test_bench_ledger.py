"""What the ledger costs, and how a fleet's ledgers merge: the benches, scaled down."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench"


def bench(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"bench_{name}", BENCH / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_hundred_thousand_requests_a_second_cost_the_request_path_under_three_percent() -> None:
    """Must show. CPU time, so that a busy machine disturbs little; and the least of five seconds."""
    ledger = bench("ledger")
    costs = asyncio.run(ledger.measure(100_000, 1.0, 5))
    shares = [cost.ledger / (cost.cpu - cost.ledger) for cost in costs["on"]]
    assert 0 < min(shares) < 0.03, shares
    assert all(cost.rate > 0 for cost in costs["on"])


@pytest.mark.slow
@pytest.mark.parametrize("distinct", [0.0, 1.0])
def test_a_fleets_ledgers_merge_in_little_time_and_memory(tmp_path: Path, distinct: float) -> None:
    """Must show, scaled: bench/merge.py does it with 1,000 ledgers of 1,000 callers."""
    merge = bench("merge")
    merge.fleet(tmp_path, 40, 100, distinct)
    found = merge.merge(tmp_path)
    assert found.callers == (4000 if distinct else 100)
    assert found.memory < 300
    assert found.cpu < 6  # a tenth of the ledgers' part of a minute; half a second is the start
