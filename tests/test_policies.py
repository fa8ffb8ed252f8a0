from __future__ import annotations

from collections import Counter

import pytest

from gridgov.engine import Engine
from gridgov.journal import Genesis, Registration
from gridgov.ledger import MemoryLedger
from gridgov.model import BOUNDARY, Actor, Constraints, Limit, Resource, Round, Transfer
from gridgov.propose import Answer, Context
from sim import policies

ENERGY = Resource("energy", "kWh", 1)


def grid(
    balances: dict[str, int], needs: dict[str, int] | None = None, types: str = "node", **limits: object
) -> Engine:
    """Actors in the order of `balances`, energy at scale 1, limits in minor units for everyone."""
    actors = (Actor(BOUNDARY, "boundary"), *(Actor(name, types) for name in balances))
    made = {key: Limit({"energy": value}, {}) if isinstance(value, int) else value for key, value in limits.items()}
    if isinstance(limits.get("max_transfers_per_proposal"), int):
        made["max_transfers_per_proposal"] = limits["max_transfers_per_proposal"]
    engine = Engine(MemoryLedger())
    opening = tuple((name, "energy", amount) for name, amount in balances.items())
    engine.append(Genesis(1, 0, 1, actors, (ENERGY,), Constraints(**made), opening, {}), 0)  # type: ignore[arg-type]
    from gridgov.flows import Request

    engine.need("load", [Request(name, "energy", amount) for name, amount in (needs or {}).items()], 0)
    return engine


def asked(engine: Engine, policy: object, actor: str | None = None, n: int = 1) -> Answer:
    answer = policies.Policy(policy).propose(Context(Round(1, "p", n), engine.state, actor))  # type: ignore[arg-type]
    assert isinstance(answer, Answer)
    return answer


def moves(answer: Answer) -> list[tuple[str, str, int]]:
    return [(t.actor_from, t.actor_to, t.amount) for t in answer.transfers if isinstance(t.amount, int)]


def test_none_never_proposes() -> None:
    assert asked(grid({"a": 10, "b": 0}, {"b": 5}), policies.none) == Answer((), "")


# --- greedy -----------------------------------------------------------------------------------------------------------


def test_greedy_serves_the_largest_deficit_from_the_largest_surplus() -> None:
    engine = grid({"a": 30, "b": 50, "c": 0, "d": 0}, {"c": 20, "d": 40})
    # b (50) -> d (40); then a (30) is the largest surplus, c (20) the largest deficit
    assert moves(asked(engine, policies.greedy)) == [("b", "d", 40), ("a", "c", 20)]


def test_greedy_breaks_ties_by_registration_order() -> None:
    engine = grid({"x": 10, "a": 10, "y": 0, "b": 0}, {"y": 10, "b": 10})
    assert moves(asked(engine, policies.greedy)) == [("x", "y", 10), ("a", "b", 10)]


def test_greedy_keeps_the_senders_need_and_minimum() -> None:
    engine = grid({"a": 30, "b": 0}, {"a": 10, "b": 30}, min_balance=5)
    assert moves(asked(engine, policies.greedy)) == [("a", "b", 15)]


def test_greedy_splits_what_is_above_max_transfer() -> None:
    engine = grid({"a": 30, "b": 0}, {"b": 25}, max_transfer=10)
    assert moves(asked(engine, policies.greedy)) == [("a", "b", 10), ("a", "b", 10), ("a", "b", 5)]


def test_greedy_stays_within_the_quota_and_turns_to_the_next_sender() -> None:
    engine = grid({"a": 30, "c": 20, "b": 0}, {"b": 25}, epoch_quota=15)
    assert moves(asked(engine, policies.greedy)) == [("a", "b", 15), ("c", "b", 10)]


def test_greedy_stays_within_the_number_of_transfers() -> None:
    engine = grid({"a": 30, "b": 0}, {"b": 25}, max_transfer=10, max_transfers_per_proposal=2)
    assert moves(asked(engine, policies.greedy)) == [("a", "b", 10), ("a", "b", 10)]


def test_greedy_moves_only_what_its_mandate_covers() -> None:
    engine = grid({"a": 30, "c": 40, "b": 0}, {"b": 25})
    engine.register(Registration(mandates={"p": ("a",)}), 0)
    assert moves(asked(engine, policies.greedy)) == [("a", "b", 25)]


def test_greedy_leaves_frozen_actors_alone() -> None:
    engine = grid({"a": 30, "c": 40, "b": 0, "d": 0}, {"b": 25, "d": 50})
    engine.register(Registration(frozen={"c": True, "d": True}), 0)
    assert moves(asked(engine, policies.greedy)) == [("a", "b", 25)]


def test_greedy_never_proposes_what_is_refused() -> None:
    engine = grid({f"a{i}": 13 * i % 40 for i in range(12)}, {f"a{i}": 7 * i % 30 for i in range(12)},
                  min_balance=3, max_transfer=4, epoch_quota=9)  # fmt: skip
    from gridgov.model import Proposal

    answer = asked(engine, policies.greedy)
    assert len(answer.transfers) > 3
    decision = engine.propose(Proposal("p1", "p", 1, answer.transfers, answer.reasoning), 0)
    assert decision.outcome == "executed"


def test_greedy_ends_although_max_transfer_is_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "TRANSFERS_MAX", 50)
    engine = grid({"a": 10**9, "b": 0}, {"b": 10**9}, max_transfer=1)
    assert len(asked(engine, policies.greedy).transfers) == 50


# --- random, hasty ----------------------------------------------------------------------------------------------------


def drawn(engine: Engine, seed: int, times: int) -> list[Transfer]:
    policy = policies.random(seed)
    return [asked(engine, policy, n=n).transfers[0] for n in range(1, times + 1)]


def test_random_draws_two_distinct_actors_and_an_amount_up_to_a_fifth_above_the_limit() -> None:
    found = drawn(grid({"a": 100, "b": 100, "c": 100}, max_transfer=50), 1, 3000)
    assert all(t.actor_from != t.actor_to for t in found)
    amounts = [t.amount for t in found]
    assert min(amounts) == 1 and max(amounts) == 60
    pairs = Counter((t.actor_from, t.actor_to) for t in found)
    assert len(pairs) == 6 and min(pairs.values()) > 400


def test_random_draws_only_nodes_where_there_are_some() -> None:
    engine = grid({"a": 100, "b": 100}, max_transfer=50)
    engine.register(Registration(actors=(Actor("plant", "plant"),)), 0)
    assert {t.actor_from for t in drawn(engine, 1, 100)} == {"a", "b"}


def test_random_depends_on_seed_and_round_alone() -> None:
    engine = grid({"a": 100, "b": 100, "c": 100}, max_transfer=50)
    assert drawn(engine, 1, 20) == drawn(engine, 1, 20) != drawn(engine, 2, 20)


def test_random_has_nothing_to_draw_with_a_single_actor() -> None:
    assert asked(grid({"a": 100}), policies.random(1)).transfers == ()


def test_random_asks_of_what_there_is_where_nothing_limits_it() -> None:
    amounts = [t.amount for t in drawn(grid({"a": 100, "b": 100}), 1, 500)]
    assert 100 < max(amounts) <= 120


def test_hasty_rounds_to_tenths_of_a_unit_and_fills_three_gaps() -> None:
    engine = grid({"a": 90, "b": 80, "c": 70, "d": 60, "e": 0, "f": 0, "g": 0, "h": 0},
                  {"e": 10, "f": 20, "g": 30, "h": 5})  # fmt: skip
    assert moves(asked(engine, policies.hasty)) == [("a", "g", 30), ("b", "f", 20), ("c", "e", 10)]


# --- a commons --------------------------------------------------------------------------------------------------------


def pool() -> policies.Commons:
    return policies.Commons("lake", "energy", 3)


def test_take_always_asks_the_same_of_the_pool_for_its_actor() -> None:
    engine = grid({"lake": 100, "a": 0})
    assert moves(asked(engine, pool().take(150), "a")) == [("lake", "a", 150)]


def test_take_max_asks_all_that_the_limits_let_it() -> None:
    assert moves(asked(grid({"lake": 100, "a": 0}, min_balance=10), pool().take_max, "a")) == [("lake", "a", 90)]
    assert moves(asked(grid({"lake": 100, "a": 0}, max_transfer=30), pool().take_max, "a")) == [("lake", "a", 30)]
    assert moves(asked(grid({"lake": 100, "a": 0}, epoch_quota=20), pool().take_max, "a")) == [("lake", "a", 20)]


def test_sustainable_asks_a_share_of_half_the_pool_rounded_down_twice() -> None:
    # floor(floor(101 / 2) / 3) = floor(50 / 3) = 16
    assert moves(asked(grid({"lake": 101, "a": 0}), pool().sustainable, "a")) == [("lake", "a", 16)]


def test_sustainable_asks_nothing_of_a_pool_that_is_nearly_empty() -> None:
    assert asked(grid({"lake": 5, "a": 0}), pool().sustainable, "a").transfers == ()


def test_planned_plays_its_epoch_once() -> None:
    engine = grid({"a": 100, "b": 0})
    planned = policies.Planned({1: (Transfer("a", "b", "energy", 5),)})
    assert len(planned.propose(Context(Round(1, "p", 1), engine.state)).transfers) == 1
    assert planned.propose(Context(Round(1, "p", 2), engine.state)).transfers == ()
    assert planned.propose(Context(Round(2, "p", 1), engine.state)).transfers == ()
