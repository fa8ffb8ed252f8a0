from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gridgov.engine import Engine
from gridgov.journal import Genesis
from gridgov.ledger import MemoryLedger
from gridgov.model import BOUNDARY, Actor, Code, Constraints, Limit, Outcome, Proposal, Resource, Transfer
from sim.allocation import allocate, proportional, served

FISHERS = ("a", "b", "c", "d", "e")


def lake(fish: int, constraints: Constraints | None = None) -> Engine:
    actors = (Actor(BOUNDARY, "boundary"), Actor("lake", "pool"), *(Actor(name, "node") for name in FISHERS))
    engine = Engine(MemoryLedger())
    opening = (("lake", "fish", fish),)
    rules = constraints or Constraints()
    engine.append(Genesis(1, 0, 1, actors, (Resource("fish", "t", 0),), rules, opening, {}), 0)
    return engine


def asks(*amounts: int) -> list[Proposal]:
    return [
        Proposal(f"p{i}", name, 1, (Transfer("lake", name, "fish", amount),), "")
        for i, (name, amount) in enumerate(zip(FISHERS, amounts, strict=False))
    ]


def granted(engine: Engine, proposals: list[Proposal]) -> list[object]:
    return [grant.proposal.transfers[0].amount for grant in allocate(engine.state, proposals, proportional)]


def test_grants_everything_where_there_is_enough() -> None:
    grants = allocate(lake(100).state, asks(20, 20, 20, 20, 20), proportional)
    assert all(grant.asked is None for grant in grants)


def test_scales_to_what_there_is_by_largest_remainder() -> None:
    # 100 x (30, 30, 50) / 110 = 27.27, 27.27, 45.45: the unit that is left goes to the largest remainder
    assert granted(lake(100), asks(30, 30, 50)) == [27, 27, 46]


def test_gives_a_tied_remainder_to_whoever_comes_first() -> None:
    assert granted(lake(10), asks(7, 7, 7)) == [4, 3, 3]


def test_shares_only_what_is_above_the_minimum() -> None:
    engine = lake(100, Constraints(min_balance=Limit({"fish": 40}, {})))
    assert granted(engine, asks(60, 60)) == [30, 30]


def test_shares_nothing_of_what_a_hold_reserves() -> None:
    engine = lake(100, Constraints(hold_above=Limit({"fish": 50}, {})))
    engine.propose(Proposal("held", "e", 1, (Transfer("lake", "e", "fish", 60),), ""), 0)
    assert granted(engine, asks(30, 30)) == [20, 20]


def test_counts_an_ask_that_is_more_than_there_is() -> None:
    assert granted(lake(100), asks(300, 100)) == [75, 25]


def test_leaves_out_asks_that_break_another_rule() -> None:
    engine = lake(100, Constraints(max_transfer=Limit({"fish": 80}, {})))
    assert granted(engine, asks(90, 80, 80)) == [90, 50, 50]


def test_a_share_of_nothing_is_refused_for_want_of_balance() -> None:
    engine = lake(2)
    grants = allocate(engine.state, asks(5, 5, 5), proportional)
    decisions = []
    for grant in grants:
        asked = grant.asked.transfers if grant.asked else None
        decisions.append(engine.propose(grant.proposal, 0, asked=asked))
    assert [d.outcome for d in decisions] == [Outcome.EXECUTED, Outcome.EXECUTED, Outcome.REJECTED]
    violation = decisions[2].violations[0]
    assert (violation.code, violation.limit, violation.actual) == (Code.INSUFFICIENT_BALANCE, 0, 5)
    assert [d.transfers[0].amount for d in decisions] == [5, 5, 5]
    assert decisions[0].granted == (1,)


def test_serves_in_a_drawn_order_until_nothing_is_left() -> None:
    ranks = {"a": 2, "b": 0, "c": 1}
    grants = allocate(lake(100).state, asks(60, 60, 60), served(lambda name: ranks[name]))
    assert [grant.proposal.transfers[0].amount for grant in grants] == [0, 60, 40]


def test_passing_on_what_is_received_asks_nothing_of_the_pass_on_actor() -> None:
    chain = Proposal("x", "a", 1, (Transfer("lake", "a", "fish", 10), Transfer("a", "b", "fish", 10)), "")
    grants = allocate(lake(100).state, [chain], proportional)
    assert grants[0].asked is None


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=20), st.integers(0, 10**6))
def test_proportional_grants_all_there_is_and_nobody_more_than_asked(amounts: list[int], there: int) -> None:
    there = min(there, sum(amounts) - 1)
    shares = proportional(["x"] * len(amounts), amounts, there)
    assert sum(shares) == there
    for ask, share in zip(amounts, shares, strict=True):
        assert 0 <= share <= ask
        assert abs(share - ask * there / sum(amounts)) < 1
