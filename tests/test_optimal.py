"""The programme against enumeration, a naive greedy play, and bounds that are known without it."""

from __future__ import annotations

import ctypes
import itertools
import random
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given as where
from hypothesis import settings
from hypothesis import strategies as st

from sim import optimal
from sim.optimal import Problem, Unsolvable, forward, solve, transfers


def problem(
    produced: list[list[int]],
    demanded: list[list[int]],
    opening: list[int] | None = None,
    minimum: Any = 0,
    quota: Any = -1,
    storage: Any = -1,
) -> Problem:
    made = np.array(produced, np.int64)
    n = made.shape[1]

    def full(value: Any, shape: tuple[int, ...]) -> Any:
        return np.broadcast_to(np.array(value, np.int64), shape).copy()

    start = np.array(opening or [0] * n, np.int64)
    needs = np.array(demanded, np.int64)
    return Problem(start, made, needs, full(minimum, made.shape), full(quota, made.shape), full(storage, (n,)))


def drawn(seed: int, actors: int, epochs: int, most: int = 12) -> Problem:
    """A small problem; half of them have a minimum above 0."""
    draw = random.Random(seed)

    def grid() -> list[list[int]]:
        return [[draw.randint(0, most) for _ in range(actors)] for _ in range(epochs)]

    return problem(
        grid(),
        grid(),
        [draw.randint(0, most) for _ in range(actors)],
        minimum=draw.choice([0, 0, draw.randint(1, most), [[draw.randint(0, 4) for _ in range(actors)]] * epochs]),
        quota=draw.choice([-1, draw.randint(0, most)]),
        storage=[draw.choice([-1, draw.randint(0, most)]) for _ in range(actors)],
    )


def epoch(
    given: Problem, t: int, balances: tuple[int, ...], moved: tuple[int, ...]
) -> tuple[int, tuple[int, ...]] | None:
    """One epoch by hand: what is served, and the balances after; None where a send is not allowed."""
    served, after = 0, []
    for i, balance in enumerate(balances):
        have = balance + int(given.produced[t, i])
        if moved[i] < 0:
            if have + moved[i] < int(given.minimum[t, i]) or have + moved[i] < 0:
                return None
            if 0 <= int(given.quota[t, i]) < -moved[i]:
                return None
        have += moved[i]
        used = min(have, int(given.demanded[t, i]))
        served += used
        left = have - used
        after.append(left if given.storage[i] < 0 else min(left, int(given.storage[i])))
    return served, tuple(after)


def moves(n: int, most: int) -> Iterator[tuple[int, ...]]:
    """Every way to move whole amounts between n actors: what each gains, summing to 0."""
    for first in itertools.product(range(-most, most + 1), repeat=n - 1):
        if abs(sum(first)) <= most:
            yield (*first, -sum(first))


def enumerated(given: Problem, most: int) -> int:
    """The best plan of a tiny problem, by looking at all of them."""
    reached = {tuple(given.opening.tolist()): 0}
    for t in range(len(given.produced)):
        after: dict[tuple[int, ...], int] = {}
        for balances, so_far in reached.items():
            for moved in moves(len(balances), most):
                found = epoch(given, t, balances, moved)
                if found is not None:
                    after[found[1]] = max(after.get(found[1], -1), so_far + found[0])
        reached = after
    return max(reached.values())


@pytest.mark.parametrize("batch", range(4))
def test_serves_as_much_as_the_best_of_all_plans(batch: int) -> None:
    for seed in range(batch * 15, batch * 15 + 15):
        actors, epochs = random.Random(-seed).choice([(2, 3), (2, 2), (3, 2)])
        given = drawn(seed, actors, epochs, most=4)
        total = int(given.opening.sum() + given.produced.sum())
        assert solve(given).served_total == enumerated(given, min(total, 8)), seed


def spread(given: Problem, t: int, balances: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """All balances that transfers of one unit, one after the other, lead to: also by sending on what came in."""
    n, made = len(balances), given.produced[t].tolist()
    seen = {(tuple(b + p for b, p in zip(balances, made, strict=True)), (0,) * n)}
    ahead = list(seen)
    while ahead:
        have, sent = ahead.pop()
        for i, j in itertools.permutations(range(n), 2):
            quota = int(given.quota[t, i])
            if have[i] - 1 < int(given.minimum[t, i]) or 0 <= quota <= sent[i]:
                continue
            moved = tuple(h - (k == i) + (k == j) for k, h in enumerate(have))
            found = moved, tuple(s + (k == i and quota >= 0) for k, s in enumerate(sent))
            if found not in seen:
                seen.add(found)
                ahead.append(found)
    yield from {have for have, _ in seen}


def walked(given: Problem) -> int:
    """The best play of a tiny problem, by walking through all transfers unit by unit."""
    reached = {tuple(given.opening.tolist()): 0}
    for t in range(len(given.produced)):
        after: dict[tuple[int, ...], int] = {}
        for balances, so_far in reached.items():
            for have in spread(given, t, balances):
                used = [min(h, int(d)) for h, d in zip(have, given.demanded[t], strict=True)]
                left = [h - u for h, u in zip(have, used, strict=True)]
                kept = tuple(k if s < 0 else min(k, int(s)) for k, s in zip(left, given.storage, strict=True))
                after[kept] = max(after.get(kept, -1), so_far + sum(used))
        reached = after
    return max(reached.values())


@st.composite
def tiny(draw: st.DrawFn) -> Problem:
    n, epochs = draw(st.sampled_from([(2, 3), (3, 2), (3, 1)]))

    def grid(low: int, most: int) -> list[list[int]]:
        row = st.lists(st.integers(low, most), min_size=n, max_size=n)
        return draw(st.lists(row, min_size=epochs, max_size=epochs))

    opening, storage = grid(0, 2)[0], grid(-1, 4)[0]
    return problem(grid(0, 3), grid(0, 3), opening, grid(0, 3), grid(-1, 3), storage)


@settings(max_examples=60)
@where(tiny())
def test_no_sequence_of_transfers_serves_more(given: Problem) -> None:
    assert solve(given).served_total == walked(given)


def test_plan_is_one_that_can_be_played_and_serves_what_it_says() -> None:
    for seed in range(100, 160):
        given = drawn(seed, 4, 6)
        plan = solve(given)
        balances, total = tuple(given.opening.tolist()), 0
        for t in range(6):
            assert plan.sent[t].sum() == plan.received[t].sum()
            assert not (plan.sent[t] * plan.received[t]).any(), "nobody sends and receives at once"
            found = epoch(given, t, balances, tuple((plan.received[t] - plan.sent[t]).tolist()))
            assert found is not None, (seed, t)
            total, balances = total + found[0], found[1]
        assert total == plan.served_total == plan.served.sum()


def greedy(given: Problem) -> int:
    """The largest surplus to the largest need, epoch by epoch."""
    balances, total = list(given.opening.tolist()), 0
    for t in range(len(given.produced)):
        have = [b + int(p) for b, p in zip(balances, given.produced[t], strict=True)]
        need = given.demanded[t].tolist()
        spare = [h - n - int(m) for h, n, m in zip(have, need, given.minimum[t], strict=True)]
        spare = [min(s, int(q)) if q >= 0 else s for s, q in zip(spare, given.quota[t], strict=True)]
        moved = [0] * len(have)
        lack = [n - h for n, h in zip(need, have, strict=True)]
        while max(spare) > 0 and max(lack) > 0:
            giver, taker = spare.index(max(spare)), lack.index(max(lack))
            amount = min(spare[giver], lack[taker])
            spare[giver], lack[taker] = spare[giver] - amount, lack[taker] - amount
            moved[giver], moved[taker] = moved[giver] - amount, moved[taker] + amount
        found = epoch(given, t, tuple(balances), tuple(moved))
        assert found is not None
        total, balances = total + found[0], list(found[1])
    return total


def test_is_never_below_a_greedy_play() -> None:
    for seed in range(1000, 1300):
        given = drawn(seed, random.Random(seed).randint(2, 5), random.Random(seed).randint(1, 7))
        assert solve(given).served_total >= greedy(given), seed


def test_pools_everything_where_nothing_is_stored_and_nothing_limits() -> None:
    given = drawn(7, 5, 9)
    given = problem(given.produced.tolist(), given.demanded.tolist(), storage=0)
    pooled = np.minimum(given.produced.sum(axis=1), given.demanded.sum(axis=1)).sum()
    assert solve(given).served_total == pooled


def test_sends_ahead_of_a_need_where_the_quota_is_tight() -> None:
    # a makes 10 now; b needs 10 later, and a may send 5 an epoch: it has to begin before the need
    given = problem([[10, 0], [0, 0]], [[0, 0], [0, 10]], quota=5)
    plan = solve(given)
    assert plan.served_total == 10 and plan.sent[:, 0].tolist() == [5, 5]


def test_sends_nothing_that_helps_nobody() -> None:
    plan = solve(problem([[10, 0], [10, 0]], [[3, 0], [4, 0]]))
    assert plan.served_total == 7 and not plan.sent.any()


def test_keeps_the_minimum_of_whoever_sends() -> None:
    assert solve(problem([[10, 0]], [[0, 10]], minimum=4)).sent[0, 0] == 6
    assert solve(problem([[3, 0]], [[0, 10]], minimum=4)).served_total == 0


def test_holding_consumption_back_gains_nothing() -> None:
    # held back, the 5 would let a send all of the 10 that it makes next; but then they are not served now
    given = problem([[5, 0], [10, 0]], [[5, 0], [0, 10]], minimum=5)
    assert solve(given).served_total == 10


def test_splits_transfers_at_the_limit_of_their_sender() -> None:
    sent, received = np.array([7, 2, 0, 0]), np.array([0, 0, 5, 4])
    assert transfers(sent, received, np.array([-1, -1, -1, -1])) == [(0, 2, 5), (0, 3, 2), (1, 3, 2)]
    found = transfers(sent, received, np.array([3, -1, -1, -1]))
    assert sum(amount for _, _, amount in found) == 9 and max(a for i, _, a in found if i == 0) <= 3


def test_forward_refuses_a_plan_that_the_engine_would() -> None:
    given = problem([[3, 0]], [[0, 3]])
    with pytest.raises(AssertionError):
        forward(given, np.array([[4, 0]]), np.array([[0, 4]]))


def test_what_is_too_large_is_refused_with_the_reason() -> None:
    big = problem([[1] * 500] * 500, [[1] * 500] * 500)
    with pytest.raises(Unsolvable, match="250000 actors x epochs"):
        solve(big)


def test_time_that_runs_out_is_no_answer() -> None:
    given = drawn(3, 5, 40)
    with pytest.raises(Unsolvable, match="time"):
        solve(problem(given.produced.tolist(), given.demanded.tolist(), minimum=3, quota=4), seconds_max=0.0)


def test_amounts_are_exact_however_large() -> None:
    given = problem([[10**14 + 1, 0]], [[0, 10**14 + 1]])
    assert solve(given).served_total == 10**14 + 1


def test_solver_is_loaded_only_where_it_solves() -> None:
    code = "import sys, sim.optimal; assert not any(name.startswith('scipy') for name in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_amounts_are_exact_however_large_where_a_minimum_is_above_0() -> None:
    # HiGHS alone takes lesser plans for optimal here; a last actor that only serves itself 1 keeps the divisor at 1
    for seed in range(40):
        small = drawn(seed, 4, 8)
        large, more = 10**8, [[0]] * 8
        one = [[1], *more[1:]]
        given = problem(
            np.hstack([small.produced * large, one]).tolist(),
            np.hstack([small.demanded * large, one]).tolist(),
            [*(small.opening * large).tolist(), 0],
            minimum=np.hstack([small.minimum * large, more]),
            quota=np.hstack([np.where(small.quota < 0, -1, small.quota * large), more]),
            storage=[*np.where(small.storage < 0, -1, small.storage * large).tolist(), 0],
        )
        assert solve(given).served_total == solve(small).served_total * large + 1, seed


def test_permission_that_is_not_used_holds_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    # while epoch 1's permission stands, actor 0 does not serve its first unit, so that it can send 3 in epoch 2
    produced = [[0, 0, 0], [0, 0, 0], [3, 0, 0], [0, 0, 0]]
    demanded = [[1, 0, 9], [0, 0, 0], [0, 3, 0], [1, 0, 0]]
    given = problem(produced, demanded, opening=[5, 0, 9], minimum=[5, 0, 0])
    permitted = np.array([[False] * 3, [True, False, False], [True, False, False], [False] * 3])
    monkeypatch.setattr(optimal, "_mixed", lambda *_: (permitted, 13.0))
    plan = solve(given)
    assert plan.served_total == 13 and plan.sent[:, 0].tolist() == [0, 0, 2, 0]


def test_plan_below_the_bound_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    given = problem([[10, 0]], [[0, 10]], minimum=3)
    monkeypatch.setattr(optimal, "_mixed", lambda *_: (np.array([[False, False]]), 7.0))
    with pytest.raises(Unsolvable, match="serves 0, but at most 7"):
        solve(given)


def test_what_the_solver_prints_stays_off_stdout(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    real = scipy.optimize.milp

    def chatty(*args: Any, **named: Any) -> Any:
        ctypes.CDLL(None).puts(b"HighsMipSolverData::transformNewIntegerFeasibleSolution tmpSolver.run();")
        return real(*args, **named)

    monkeypatch.setattr(scipy.optimize, "milp", chatty)
    sys.stdout.write("before\n")
    assert solve(problem([[10, 0]], [[0, 10]], minimum=4)).served_total == 6
    sys.stdout.write("after\n")
    assert capfd.readouterr().out == "before\nafter\n"
