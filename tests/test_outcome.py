"""Outcomes as programs and people read them: exact, complete, and never a way out of the text for what others wrote."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridgov import outcome
from gridgov.journal import Decision
from gridgov.model import Code, Limit, Outcome
from gridgov.outcome import Reply, code, fenced, outcome_json, touched
from gridgov.pages import reply_of
from gridgov.replay import fold
from gridgov.state import State
from tests import worlds

GOLDEN = Path(__file__).parent / "golden"
URL = "https://grid.example"


def told(world):
    """Every outcome of a world, by seq: its record, the held decision, and what it is told as."""
    state = State()
    found: dict[int, Any] = {}
    held: dict[str, Any] = {}
    for record in world.ledger.records():
        payload: Any = record.payload
        of = getattr(payload, "proposal_id", None)
        own, held_in = held.get(of, (None, None)) if record.kind == "settlement" else (None, None)
        pairs = [(a, r) for a, r in touched(payload, own) if a in state.actors and r in state.resources]
        before = {pair: state.balance(*pair) for pair in pairs}
        fold(state, record)
        if isinstance(payload, outcome.Outcomes):
            balances = {pair: (before[pair], state.balance(*pair)) for pair in pairs}
            found[record.seq] = outcome_json(
                record, decision=own, balances=balances, resources=state.resources, public_url=URL, held_in=held_in
            )
            if isinstance(payload, Decision):
                held[payload.proposal_id] = payload, record.epoch
    return found


@pytest.fixture(scope="module")
def everything():
    world, _ = worlds.everything()
    return told(world)


def test_every_outcome_has_all_that_the_api_promises(everything):
    kinds = {(one["kind"], one["outcome"]) for one in everything.values()}
    assert {outcome for _, outcome in kinds} == {each.value for each in Outcome}
    assert {kind for kind, _ in kinds} == {"proposal", "settlement", "override", "reversal"}
    for seq, one in everything.items():
        assert one["seq"] == seq
        assert len(one["digest"]) == 64
        assert one["url"].startswith(URL)
        assert f"`{seq}:{one['digest']}`" in one["linear"]["description"]
        assert one["url"] in one["linear"]["description"]
        assert "error" not in one
        assert len(one["linear"]["title"]) <= outcome.TITLE
        assert all(violation["words"] for violation in one["violations"])


def test_issue_of_each_outcome_reads_as_it_did(everything):
    text = "\n\n".join(
        f"# {one['linear']['title']} [priority {one['linear']['priority']}]\n\n{one['linear']['description']}"
        for one in everything.values()
    )
    golden = GOLDEN / "issues.md"
    assert text == golden.read_text(encoding="utf-8"), (
        "if it is meant: look at it, and write it to tests/golden/issues.md"
    )


def test_hold_and_its_settlement_are_one_issue(everything):
    by_proposal = {}
    for one in everything.values():
        if one["proposal_id"] and one["kind"] in ("proposal", "settlement"):
            by_proposal.setdefault(one["proposal_id"], set()).add(one["linear"]["issue_id"])
    assert all(len(ids) == 1 for ids in by_proposal.values())
    assert len(set.union(*by_proposal.values())) == len(by_proposal)


def of_reply(model, epoch, decision):
    """The issue of a proposal of this model that was held in epoch 1 and settled in another."""
    world = worlds.seed_world(hold_above=Limit({"energy": 1}, {}))
    held = world.propose(("actor-1", "actor-2", "energy", 5))
    while world.state.epoch < epoch:
        world.engine.close(world.state.at)
    world.engine.settle(held.proposal_id, decision, world.state.at, "mia", "because")
    record = list(world.ledger.records())[-1]
    reply = outcome.Reply(model, "synthetic" if model.startswith("synthetic/") else "recorded")
    return outcome_json(
        record, decision=held, balances={}, resources=world.state.resources, public_url=URL, held_in=1, reply=reply
    )


@pytest.mark.parametrize(
    ("epoch", "decision", "title", "words"),
    [
        (1, "approve", "(epoch 1, approved)", "It was held in epoch 1, and approved by `mia`: `because`."),
        (3, "reject", "(epoch 1, rejected in 3)", "It was held in epoch 1, and rejected by `mia`: `because`."),
    ],
)
def test_issue_of_a_hold_says_of_which_epoch_it_is_and_when_it_ended(epoch, decision, title, words):
    issue = of_reply("gemini-x", epoch, decision)["linear"]
    assert issue["title"].endswith(f": actor-1 to actor-2, 5 kWh energy {title}")
    assert words in issue["description"]


def test_issue_says_whose_the_reply_was_and_calls_a_synthetic_one_synthetic():
    told = of_reply("synthetic/hasty", 1, "approve")
    assert told["reply"] == {"model": "synthetic/hasty", "origin": "synthetic"}
    assert (
        "The reply is synthetic: `synthetic/hasty` made it, and no model ever gave it." in told["linear"]["description"]
    )
    told = of_reply("gemini`\n# x" + "y" * 500, 1, "approve")
    assert "The reply is that of the model ``gemini` # x" in told["linear"]["description"]
    assert "synthetic" not in told["linear"]["description"]
    assert all(len(line) < 300 for line in told["linear"]["description"].splitlines())


def test_reply_that_was_kept_without_an_origin_is_a_recorded_one():
    assert reply_of({"model_answered": "gemini-x"}) == Reply("gemini-x", "recorded")
    assert reply_of({}) is None


def test_dry_run_has_neither_number_nor_issue():
    world = worlds.seed_world()
    decision = world.propose(("actor-1", "actor-2", "energy", 5))
    record = world.ledger.answered(decision.proposal_id)
    balances = {("actor-1", "energy"): (100, 95)}
    resources = world.state.resources
    found = outcome_json(record, decision=None, balances=balances, resources=resources, public_url=URL, dry_run=True)
    assert (found["dry_run"], found["seq"], found["digest"], found["entries"]) == (True, None, None, [])
    assert found["balances"] == [{"actor": "actor-1", "resource": "energy", "before": 100, "after": 95}]
    assert not {"linear", "url"} & found.keys()


def test_issue_of_a_long_proposal_is_cut_and_says_so():
    world = worlds.seed_world()
    transfers = [("actor-1", "actor-2", "energy", 1)] * 60
    world.propose(*transfers, reasoning="why " * 2_000)
    [one] = told(world).values()
    assert "... and 10 more" in one["linear"]["description"]
    assert "more characters" in one["linear"]["description"]
    assert one["linear"]["title"] == "Executed: actor-1 to actor-2, 1 kWh energy, and 59 more (epoch 1)"


def test_more_violations_than_are_shown_are_counted():
    world = worlds.seed_world()
    world.propose(*[("nobody", "actor-2", "energy", 1)] * 60)
    [one] = told(world).values()
    assert len(one["violations"]) == 60
    assert one["linear"]["description"].count(f"`{Code.UNKNOWN_ACTOR}`") == outcome.SHOWN
    assert "... and 10 more" in one["linear"]["description"]


texts = st.text(st.sampled_from("`|\n\r*_#<>[]()@!\\ ab\u202e\u2028"), max_size=40)


@given(texts)
def test_code_span_is_one_line_that_its_text_cannot_leave(text):
    span = code(text)
    assert span.splitlines() == [span]
    fence = span[: len(span) - len(span.lstrip("`"))]
    inside = span[len(fence) : -len(fence)]
    assert span.endswith(fence)
    runs = [len(run) for run in "".join(c if c == "`" else " " for c in inside).split()]
    assert len(fence) not in runs, "a run as long as the fence would end it"
    assert "|" not in inside.replace("\\|", "")


@given(texts)
def test_fenced_block_keeps_its_text_and_ends_after_it(text):
    block = fenced(text)
    fence = block[: len(block) - len(block.lstrip("`"))]
    assert block == f"{fence}text\n{text}\n{fence}"
    assert fence not in text
