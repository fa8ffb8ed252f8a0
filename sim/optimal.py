"""The perfect-foresight programme for one resource: arrays in, the best plan out; no scenarios, no ledger, no I/O.

One epoch, as the engine plays it, for every actor at once: `produced` is added to the balance; the planner moves
amounts between actors; `min(demanded, balance)` is served, by force; what then exceeds `storage` is spilled. A sender
sends at most `quota` in an epoch and keeps at least `minimum` after sending; consumption may take a balance below it.
`solve` maximises what is served over all epochs and actors, and among the plans that do, sends little. Amounts are
ints in minor units.

Why the programme may leave consumption free although the engine forces it: take an optimal plan that holds a unit
back at its earliest chance, and serve it instead. From then on that actor has one unit less, until the first of
these: it serves one unit less (what is served in total stays the same); it spills one unit less (more is served than
was optimal: impossible); or a send would leave it below its minimum. That send was of at least one unit: send one
unit less and the balance is as it was, while the receiver now has the one unit less, and the same holds for it. So
one unit served now costs at most one later, and an optimal plan exists that holds nothing back. Nor does more balance
ever hurt, so free spilling loses nothing either. Receiving and sending on in the same epoch gains nothing: the net
amounts are allowed whenever the gross ones are.

Where each `minimum` is 0 the programme is a flow in a network (actor before transfers -> hub of the epoch -> actor
after transfers -> demand, or the actor in the next epoch), so its vertices are integral. Where it is not, `may_send`
(binary) says which actor may send in which epoch, and for fixed binaries it is that flow again, with lower bounds. A
unit sent costs 1 / (T + 1): a cycle that improves a flow serves one unit more and passes each epoch's hub once at
most, so it adds at most T units sent, and the cost can never outweigh what is served (Ahuja, Magnanti, Orlin, Network
Flows, 1993, theorem 3.7: a flow is best when there is no improving cycle). The same exchange shows that such a plan's
sends stand when consumption is forced; still every plan is played in exact integers before it is returned.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import floor, gcd, inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

SIZE_MAX = 200_000
"""Largest actors x epochs of a linear programme: 17 homes x 8,760 hours take 25 to 60 s and 1 GB, x 168 hours 0.2 s."""
SIZE_MIXED_MAX = 6_000
"""Largest actors x epochs where some minimum is above 0: of 17 homes x 168 hours most take 2 to 20 s, some minutes."""
SECONDS_MAX, SECONDS_MIXED_MAX = 120.0, 60.0
"""Time for each run of the solver, by default; the second where some minimum is above 0."""
TOTAL_MAX = 10**12
"""Largest supply (opening and produced, in units of the amounts' common divisor) that the solver's floats can hold."""
INTEGRAL_WITHIN = 1e-4
BITS_MIXED = 24
"""The mixed-integer programme is in units of a power of 2 in which the supply has no more bits than this: with some 34,
HiGHS 1.12 took lesser plans for optimal (7 of 200 small problems); with this, none."""


class Unsolvable(Exception):
    """The programme was not solved to proven optimality; the one argument says why, in one line."""


@dataclass(frozen=True, eq=False)
class Problem:
    """One resource over T epochs and n actors, in minor units, int64; only `quota` and `storage` may be -1.

    Attributes:
        opening: (n,) balances before the first epoch.
        produced: (T, n) added at the start of each epoch.
        demanded: (T, n) served at the end of each epoch as far as the balance goes.
        minimum: (T, n) least balance after a send.
        quota: (T, n) most that an actor sends in an epoch; -1 is no limit.
        storage: (n,) most that an actor carries into the next epoch; -1 is no limit.
    """

    opening: Ints
    produced: Ints
    demanded: Ints
    minimum: Ints
    quota: Ints
    storage: Ints

    def __post_init__(self) -> None:
        shape = self.produced.shape
        assert len(shape) == 2 and shape[0] > 0, f"produced is (T, n), not {shape}"
        for name, floor_, wanted in (
            ("opening", 0, shape[1:]),
            ("produced", 0, shape),
            ("demanded", 0, shape),
            ("minimum", 0, shape),
            ("quota", -1, shape),
            ("storage", -1, shape[1:]),
        ):
            values = getattr(self, name)
            assert values.dtype == np.int64 and values.shape == wanted, f"{name}: {values.dtype} {values.shape}"
            assert values.size == 0 or values.min() >= floor_, f"{name} is below {floor_}"


@dataclass(frozen=True, eq=False)
class Plan:
    """What to move in each epoch, in minor units, and what that serves; int64 of shape (T, n).

    No actor sends and receives in the same epoch, and each epoch's sent and received sum to the same.
    """

    served_total: int
    sent: Ints
    received: Ints
    served: Ints


def size(problem: Problem) -> int:
    """Cells of the programme: epochs x actors."""
    return problem.produced.size


def solve(problem: Problem, *, seconds_max: float | None = None) -> Plan:
    """The plan that serves most, proven optimal and played in exact integers.

    Args:
        problem: one resource; an actor that cannot send (`max_transfer` 0, frozen) has quota 0.
        seconds_max: time for each run of the solver: one for a linear programme, some more for a mixed-integer one.
            None is SECONDS_MAX or SECONDS_MIXED_MAX.

    Raises:
        Unsolvable: too many cells, too large amounts, out of time, or an answer that does not hold in integers.
    """
    mixed = bool(problem.minimum.any())
    size_max = SIZE_MIXED_MAX if mixed else SIZE_MAX
    if size(problem) > size_max:
        why = " with a minimum above 0" if mixed else ""
        raise Unsolvable(f"{size(problem)} actors x epochs{why} is more than {size_max}")
    if seconds_max is None:
        seconds_max = SECONDS_MIXED_MAX if mixed else SECONDS_MAX
    small, unit = _reduced(problem)
    reach = _reach(small)
    if not reach.send.any():
        nothing = np.zeros_like(problem.produced)
        served = forward(problem, nothing, nothing)
        return Plan(int(served.sum()), nothing, nothing, served)
    may_send, bound = _mixed(small, reach, seconds_max) if mixed else (reach.send > 0, inf)
    while True:
        sent, received, served_total = _flow(small, reach, may_send, seconds_max)
        if mixed and served_total + 1 <= bound:
            raise Unsolvable(f"a plan serves {served_total * unit}, but at most {floor(bound) * unit} can be served")
        served, fault = _play(problem, sent * unit, received * unit)
        if not fault and served.sum() == served_total * unit:
            return Plan(served_total * unit, sent * unit, received * unit, served)
        # For a send that is not made, the programme may hold back what the engine consumes: forbid it.
        used = may_send & ((sent > 0) | (small.minimum == 0))
        if (used == may_send).all():
            raise Unsolvable(f"the solver's plan does not hold in integers: {fault or 'it serves less when played'}")
        may_send = used


def forward(problem: Problem, sent: Ints, received: Ints) -> Ints:
    """Plays a plan in exact integers, consumption and spill forced, and returns what is served, (T, n).

    The plan has to be one that the engine accepts (an assertion). Complexity: O(T x n).
    """
    served, fault = _play(problem, sent, received)
    assert not fault, fault
    return served


def transfers(sent_row: Ints, received_row: Ints, max_transfer_row: Ints) -> list[tuple[int, int, int]]:
    """Pairs one epoch's senders with its receivers, in index order: [(sender, receiver, amount)].

    At most senders + receivers - 1 transfers, and one more for each that `max_transfer_row` (-1: no limit) splits.
    """
    assert sent_row.sum() == received_row.sum(), "what is sent is not what is received"
    assert not (sent_row[max_transfer_row == 0]).any(), "an actor without transfers has quota 0"
    made: list[tuple[int, int, int]] = []
    receivers = [(int(j), int(received_row[j])) for j in np.flatnonzero(received_row)]
    at, wanted = -1, 0
    for i in map(int, np.flatnonzero(sent_row)):
        left, most = int(sent_row[i]), int(max_transfer_row[i])
        while left:
            if not wanted:
                at += 1
                wanted = receivers[at][1]
            amount = min(left, wanted) if most < 0 else min(left, wanted, most)
            made.append((i, receivers[at][0], amount))
            left, wanted = left - amount, wanted - amount
    return made


def _play(problem: Problem, sent: Ints, received: Ints) -> tuple[Ints, str]:
    """What is served, and the first rule that the plan breaks, if any."""
    served = np.zeros_like(problem.produced)
    balance = problem.opening.copy()
    unlimited = problem.storage < 0
    for t in range(len(served)):
        balance = balance + problem.produced[t] - sent[t]
        over_quota = (sent[t] > problem.quota[t]) & (problem.quota[t] >= 0)
        if ((sent[t] > 0) & (balance < problem.minimum[t])).any() or over_quota.any():
            return served, f"epoch {t}: a send breaks the minimum or the quota"
        if min(sent[t].min(), received[t].min()) < 0 or sent[t].sum() != received[t].sum():
            return served, f"epoch {t}: what is sent is not what is received"
        balance = balance + received[t]
        served[t] = np.minimum(problem.demanded[t], balance)
        balance = balance - served[t]
        balance = np.where(unlimited, balance, np.minimum(balance, problem.storage))
    return served, ""


def _reduced(problem: Problem) -> tuple[Problem, int]:
    """The same programme in units of the common divisor, opening balances produced first, no amount above the supply.

    Vertices are integral in these units too, so nothing is lost. Limits of -1 become the supply, which never binds.
    """
    supply = float(problem.opening.sum(dtype=np.float64) + problem.produced.sum(dtype=np.float64))
    arrays = (problem.opening, problem.produced, problem.demanded, problem.minimum, problem.quota, problem.storage)
    unit = gcd(*(int(np.gcd.reduce(np.maximum(a, 0), axis=None)) for a in arrays)) or 1
    if supply / unit > TOTAL_MAX:
        raise Unsolvable(
            f"a supply of {supply / unit:.3g} units is more than {TOTAL_MAX:.0e}: too large for exact floats"
        )
    opening, produced, demanded, minimum, quota, storage = (np.where(a < 0, -1, a // unit) for a in arrays)
    produced[0] += opening
    most = int(produced.sum())
    return (
        Problem(
            opening=np.zeros_like(opening),
            produced=produced,
            demanded=np.minimum(demanded, most),
            minimum=np.minimum(minimum, most + 1),
            quota=np.where((quota < 0) | (quota > most), most, quota),
            storage=np.where((storage < 0) | (storage > most), most, storage),
        ),
        unit,
    )


@dataclass(frozen=True, eq=False)
class _Reach:
    """The most, (T, n), that a plan with forced consumption can `send`, `receive`, and `keep` at an epoch's end."""

    send: Ints
    receive: Ints
    keep: Ints


def _reach(small: Problem) -> _Reach:
    send, receive, keep = (np.zeros_like(small.produced) for _ in range(3))
    balance = small.opening
    for t in range(len(send)):
        balance = balance + small.produced[t]
        send[t] = np.minimum(small.quota[t], np.maximum(balance - small.minimum[t], 0))
        receive[t] = send[t].sum() - send[t]
        balance = np.clip(balance + receive[t] - small.demanded[t], 0, small.storage)
        keep[t] = balance
    return _Reach(send, receive, keep)


class _Rows:
    """Rows `low <= sum of value x column <= high` of a sparse matrix, added a block at a time."""

    def __init__(self) -> None:
        self.count = 0
        self.triplets: list[tuple[Ints, Ints, Floats]] = []
        self.limits: list[tuple[Floats, Floats]] = []

    def add(self, low: Any, high: Any, *terms: tuple[Any, Ints, Any]) -> None:
        """Adds as many rows as `high` has; a term is (rows within the block, columns, values or one value)."""
        high = np.ravel(np.asarray(high, dtype=np.float64))
        self.limits.append((np.broadcast_to(np.asarray(low, dtype=np.float64), high.shape), high))
        for rows, of, values in terms:
            columns = np.ravel(of)
            spread = np.broadcast_to(np.ravel(np.asarray(values, dtype=np.float64)), columns.shape)
            self.triplets.append((np.ravel(rows) + self.count, columns, spread))
        self.count += len(high)

    def constraint(self, columns_count: int) -> Any:
        rows, columns, values = (np.concatenate(parts) for parts in zip(*self.triplets, strict=True))
        low, high = (np.concatenate(parts) for parts in zip(*self.limits, strict=True))
        from scipy.optimize import LinearConstraint
        from scipy.sparse import csc_array

        matrix = csc_array((values, (rows, columns)), shape=(self.count, columns_count))
        return LinearConstraint(matrix, low, high)


def _network(small: Problem, kept: Ints, *permission: tuple[Any, Ints, Any], scale: float = 1.0) -> _Rows:
    """The rows that both programmes share; columns: sent, received, served, carried, each (T, n) in row-major order.

    `kept` (T, n) stays with a sender after it sends; `permission` is the mixed-integer programme's term for the same.
    Right-hand sides are divided by `scale`.
    """
    rows, (epochs, n) = _Rows(), small.produced.shape
    cell = np.arange(epochs * n).reshape(epochs, n)
    sent, received, served, carried = (cell + k * cell.size for k in range(4))
    # sent + kept <= carried before + produced
    rows.add(-inf, (small.produced - kept) / scale, (cell, sent, 1), (cell[1:], carried[:-1], -1), *permission)
    # served + carried <= carried before + produced - sent + received; the slack is spilled
    rows.add(
        -inf,
        small.produced / scale,
        *((cell, served, 1), (cell, carried, 1), (cell, sent, 1), (cell, received, -1), (cell[1:], carried[:-1], -1)),
    )
    # what is sent in an epoch is received in it
    epoch = np.repeat(np.arange(epochs), n)
    rows.add(0, np.zeros(epochs), (epoch, sent, 1), (epoch, received, -1))
    return rows


def _flow(small: Problem, reach: _Reach, may_send: NDArray[np.bool_], seconds_max: float) -> tuple[Ints, Ints, int]:
    """Sent, received and the total served of the best plan in which who may send, (T, n), is given."""
    epochs = len(small.produced)
    rows = _network(small, small.minimum * may_send)
    limits = (reach.send * may_send, reach.receive, small.demanded, reach.keep)
    high = np.concatenate([limit.ravel() for limit in limits])
    cost = np.repeat([1 / (epochs + 1), 0.0, -1.0, 0.0], size(small))
    answer = _run(cost, rows, (0, high), seconds_max)
    if answer.status != 0:
        raise Unsolvable(_reason(answer))
    if np.abs(answer.x - np.rint(answer.x)).max() > INTEGRAL_WITHIN:
        raise Unsolvable("the solver's plan is not integral: the amounts are too large for its tolerances")
    sent, received, served, _ = np.rint(answer.x).astype(np.int64).reshape(4, *small.produced.shape)
    return sent, received, int(served.sum())


def _mixed(small: Problem, reach: _Reach, seconds_max: float) -> tuple[NDArray[np.bool_], float]:
    """Who may send when in the best plan, (T, n), and an upper bound on what any plan serves, less than 1 above it.

    Columns, each (T, n): those of the network, may_send, has_sent, drawn (the last two as `_link` has them).
    """
    count = size(small)
    cell = np.arange(count).reshape(small.produced.shape)
    scale = 2.0 ** max(0, int(small.produced.sum()).bit_length() - BITS_MIXED)
    permission = (cell, cell + 4 * count, small.minimum / scale)
    rows = _network(small, np.zeros_like(small.minimum), permission, scale=scale)
    rows.add(-inf, np.zeros(count), (cell, cell, 1), (cell, cell + 4 * count, -reach.send / scale))
    _link(rows, small, reach, scale)
    limits = (limit.ravel() / scale for limit in (reach.send, reach.receive, small.demanded, reach.keep))
    high = np.concatenate([*limits, (reach.send > 0).ravel(), np.ones(count), np.full(count, inf)])
    low = np.repeat([0, 0, 0, 0, 0, 0, -inf], count)
    cost = np.repeat([0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0], count)
    integral = np.repeat([0, 0, 0, 0, 1, 1, 0], count)
    # What is served is integral, so a gap of less than 1 closes it. (HiGHS divides by what is served.)
    gap = 0.5 / max(1, int(small.demanded.sum()))
    answer = _run(cost, rows, (low, high), seconds_max, integrality=integral, mip_rel_gap=gap)
    if answer.x is None:
        raise Unsolvable(_reason(answer))
    best, bound = -answer.fun * scale, -answer.mip_dual_bound * scale + INTEGRAL_WITHIN
    if floor(best + INTEGRAL_WITHIN) + 1 <= bound:
        raise Unsolvable(
            f"{_reason(answer)}, with the most that can be served between {floor(best)} and {floor(bound)}"
        )
    return answer.x[4 * count : 5 * count].reshape(cell.shape) > 0.5, bound


def _link(rows: _Rows, small: Problem, reach: _Reach, scale: float) -> None:
    """Adds rows that say nothing new of whole plans, but bring fractional ones near them: they cut the time by 5 to 50.

    Without them a home that is away sends a little in every hour with a small fraction of `may_send`, and never fills
    the minimum that it could not get back. In a window (see `_windows`), `has_sent` is 1 from the first epoch with
    `may_send` on; then the balance stays at its floor or above, and what was `drawn` beyond the window's opening
    balance and receipts is at most what the actor produced in it, less the minimum that it has kept.
    """
    first, floor_, most = _windows(small, reach)
    count, n = first.size, first.shape[1]
    later = first < np.arange(len(first))[:, None]
    inside = later | np.vstack([later[1:], np.zeros((1, n), dtype=np.bool_)])
    each, next_, head = (np.flatnonzero(where) for where in (inside, later, inside & ~later))
    carried, may_send, has_sent, drawn = (k * count for k in (3, 4, 5, 6))
    row = np.arange(count)
    every, following, heading = row[: len(each)], row[: len(next_)], row[: len(head)]
    rows.add(-inf, np.zeros(len(each)), (every, each + may_send, 1), (every, each + has_sent, -1))
    rows.add(-inf, np.zeros(len(next_)), (following, next_ - n + has_sent, 1), (following, next_ + has_sent, -1))
    rows.add(
        -inf, np.zeros(len(each)), (every, each + has_sent, floor_.ravel()[each] / scale), (every, each + carried, -1)
    )
    rows.add(-inf, np.zeros(len(each)), (every, each + drawn, 1), (every, each + has_sent, -most.ravel()[each] / scale))
    opened = head >= n
    rows.add(
        0,
        np.zeros(len(head)),
        *((heading, head + drawn, 1), (heading, head, -1), (heading[opened], head[opened] - n + carried, 1)),
    )
    rows.add(
        0,
        np.zeros(len(next_)),
        *((following, next_ + drawn, 1), (following, next_ - n + drawn, -1)),
        *((following, next_, -1), (following, next_ - n + count, 1)),
    )


def _windows(small: Problem, reach: _Reach) -> tuple[Ints, Ints, Ints]:
    """Epochs in which a sender cannot have used up its minimum yet, by forced consumption: three of (T, n).

    The epoch in which the cell's window began; the least balance at the cell's close if the actor has sent in the
    window (0 ends it); the most it can have sent by then, not counting the window's opening balance and receipts.
    """
    first, floor_, most = (np.zeros_like(small.produced) for _ in range(3))
    start = level = least = produced = able = np.zeros_like(small.opening)
    for t in range(len(first)):
        fresh = (level == 0) | (small.minimum[t] == 0)
        start = np.where(fresh, t, start)
        now = np.clip(small.minimum[t] - small.demanded[t], 0, small.storage)
        before = np.clip(level + small.produced[t] - small.demanded[t], 0, small.storage)
        level = np.where(fresh, now, np.minimum(now, before))
        least = np.where(fresh, small.minimum[t], np.minimum(least, small.minimum[t]))
        produced = np.where(fresh, 0, produced) + small.produced[t]
        able = np.where(fresh, 0, able) + reach.send[t]
        first[t], floor_[t], most[t] = start, level, np.minimum(able, produced - least)
    return first, floor_, most


def _run(
    cost: Floats, rows: _Rows, bounds: Any, seconds_max: float, *, integrality: Any = None, **options: float
) -> Any:
    """HiGHS's answer: the least cost, as `scipy.optimize.milp` gives it."""
    options["time_limit"] = seconds_max
    from scipy.optimize import Bounds, milp

    constraint = rows.constraint(len(cost))
    with _stdout_kept():
        return milp(cost, integrality=integrality, bounds=Bounds(*bounds), constraints=constraint, options=options)


@contextmanager
def _stdout_kept() -> Iterator[None]:
    """Drops what C code prints meanwhile on stdout, where under `--json` nothing but JSON may stand.

    HiGHS 1.12 (SciPy 1.17) prints "HighsMipSolverData::transformNewIntegerFeasibleSolution" now and then, whatever it
    is told: github.com/jump-dev/HiGHS.jl, issues 312 and 318.
    """
    import ctypes

    flush_c = ctypes.CDLL(None).fflush
    sys.stdout.flush()
    flush_c(None)
    stdout, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        flush_c(None)
        os.dup2(stdout, 1)
        os.close(stdout)
        os.close(nowhere)


def _reason(answer: Any) -> str:
    return "the solver ran out of time" if answer.status == 1 else f"the solver stopped: {answer.message}"
