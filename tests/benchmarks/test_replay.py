"""Columnar replay of 5 million entries beside bare NumPy on the same arrays."""

from __future__ import annotations

import numpy as np
import pytest

from gridgov.replay import Columns, balances_at, balances_every
from tests.benchmarks.side_by_side import compare

ENTRIES, ACTORS, WIDTH, EPOCHS = 5_000_000, 101, 3, 1_000


def ledger() -> Columns:
    draws = np.random.default_rng(1)
    giver = draws.integers(0, ACTORS, ENTRIES)
    return Columns(
        tuple(f"a-{i}" for i in range(ACTORS)),
        ("energy", "water", "credits"),
        giver,
        (giver + draws.integers(1, ACTORS, ENTRIES)) % ACTORS,
        draws.integers(0, WIDTH, ENTRIES),
        draws.integers(1, 60_000, ENTRIES),
        np.sort(draws.integers(0, EPOCHS + 1, ENTRIES)),
    )


def bare_at(columns: Columns) -> np.ndarray:
    """What one writes by hand: two weighted bin counts."""
    size = ACTORS * WIDTH
    taken = np.bincount(columns.actor_to * WIDTH + columns.resource, columns.amount, size)
    given = np.bincount(columns.actor_from * WIDTH + columns.resource, columns.amount, size)
    return (taken - given).astype(np.int64).reshape(ACTORS, WIDTH)


def bare_every(columns: Columns) -> np.ndarray:
    size = (EPOCHS + 1) * ACTORS * WIDTH
    base = columns.epoch * (ACTORS * WIDTH) + columns.resource
    change = np.bincount(base + columns.actor_to * WIDTH, columns.amount, size)
    change -= np.bincount(base + columns.actor_from * WIDTH, columns.amount, size)
    return np.cumsum(change.reshape(EPOCHS + 1, ACTORS, WIDTH), axis=0).astype(np.int64)


@pytest.mark.benchmark
def test_columnar_replay_beside_bare_numpy() -> None:
    columns = ledger()
    assert (balances_at(columns) == bare_at(columns)).all()
    assert (balances_every(columns, EPOCHS) == bare_every(columns)).all()
    compare("balances of 5 M entries / bare NumPy", lambda: balances_at(columns), lambda: bare_at(columns))
    compare(
        "every epoch's balances of 5 M entries / bare NumPy",
        lambda: balances_every(columns, EPOCHS),
        lambda: bare_every(columns),
    )
