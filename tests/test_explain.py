"""The story of a proposal says what was seen, said, judged, moved and settled, as it was at the time."""

import json
import uuid

import pytest

from gridgov.errors import BadInput
from gridgov.explain import explain
from gridgov.export import export, write_journal
from gridgov.source import open_source
from tests import worlds


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """The run, and a function that tells the story of a proposal by (epoch, proposer, n)."""
    folder = tmp_path_factory.mktemp("runs")
    _, run = worlds.everything()
    export(run, folder)

    def tell(epoch, proposer, n):
        with open_source(run.run_id, folder) as source:
            found = explain(source, worlds.Round(epoch, proposer, n).proposal_id)
        json.dumps(found, allow_nan=False)
        return found

    return run, tell


def test_tells_what_an_executed_proposal_saw_and_moved(told):
    story = told[1](1, "planner", 1)
    assert story["outcome"] == story["judged"]["outcome"] == "executed"
    assert (story["epoch"], story["proposer"], story["n"], story["seq"]) == (1, "planner", 1, 4)
    assert story["seen"]["world_state"]["actors"][0] == {
        "id": "actor-1",
        "type": "node",
        "balances": {"energy": 120, "water": 50},
        "needs": {"energy": 5},
    }
    assert story["seen"]["world_state"]["timestamp"] == "2025-02-28T12:00:00Z"
    assert story["said"]["reasoning"] == "because"
    assert story["said"]["transfers"][0] == {"from": "actor-1", "to": "actor-2", "resource": "energy", "amount": 30}
    assert story["moved"] == {
        "entries": [
            {"id": 6, "from": "actor-1", "to": "actor-2", "resource": "energy", "amount": 30},
            {"id": 7, "from": "actor-2", "to": "actor-1", "resource": "energy", "amount": 1},
        ],
        "balances": [
            {"actor": "actor-1", "resource": "energy", "before": 120, "after": 91},
            {"actor": "actor-2", "resource": "energy", "before": 80, "after": 109},
        ],
    }
    assert story["settled"] is None
    assert story["seen"]["interaction"] is None


def test_tells_every_broken_rule_in_words(told):
    story = told[1](1, "planner", 2)
    assert story["outcome"] == "rejected"
    assert story["moved"] == {"entries": [], "balances": []}
    assert story["judged"]["violations"] == [
        {
            "code": "max_transfer",
            "path": "transfers[0].amount",
            "limit": 50,
            "actual": 60,
            "words": "transfers[0]: 60 kWh is above 50 kWh, the most that one transfer may move",
        },
        {
            "code": "unknown_actor",
            "path": "transfers[1].to",
            "actual": "nobody",
            "words": "transfers[1]: there is no actor nobody",
        },
    ]


def test_tells_how_a_hold_was_settled(told):
    story = told[1](1, "second", 1)
    assert story["judged"] == {"outcome": "held", "violations": [], "held_until": 3}
    assert story["outcome"] == "executed"
    settled = story["settled"]
    assert [settled[key] for key in ("epoch", "decision", "operator", "reason")] == [2, "approve", "ops", "fine"]
    assert settled["at"] == "2025-02-28T13:00:00Z"
    assert settled["judged"] == {"outcome": "executed", "violations": []}
    assert settled["moved"]["balances"] == [
        {"actor": "actor-2", "resource": "water", "before": 120, "after": 85},
        {"actor": "actor-1", "resource": "water", "before": 50, "after": 85},
    ]
    expired = told[1](1, "third", 1)
    assert expired["outcome"] == "rejected"
    assert expired["settled"]["judged"]["violations"][0]["words"] == (
        "nobody approved it while it was held, until epoch 3"
    )
    assert told[1](4, "third", 1)["settled"] is None


def test_tells_what_an_allocation_granted(told):
    story = told[1](1, "second", 2)
    assert story["said"]["transfers"][0]["amount"] == 7
    assert story["judged"]["granted"][0]["amount"] == 3


def test_tells_what_was_asked_of_a_model_and_its_raw_reply(told):
    _, tell = told
    seen = tell(1, "second", 1)["seen"]["interaction"]
    assert seen["line"] == {"body": '{"transfers": []}', "user": "what now?"}
    assert [seen[key] for key in ("origin", "tokens_in", "status")] == ["synthetic", 900, "200"]
    assert seen["called_at"] == "2025-02-28T12:00:01.500000Z"
    assert seen["cost"] == "0.000012500000"
    assert tell(1, "second", 1)["said"]["raw"] == '{"transfers": []}'
    assert "cost" not in tell(1, "third", 1)["seen"]["interaction"]


def test_tells_why_a_reply_was_no_proposal(told):
    story = told[1](1, "planner", 4)
    assert story["said"]["fault"] == {"code": "not_pure_json", "detail": "at 0: ```"}
    assert story["judged"] == {"outcome": "malformed", "violations": []}


def test_tells_what_a_shadow_proposed(told):
    story = told[1](1, "shade", 1)
    assert story["shadow"] is True
    assert story["seq"] is None
    assert story["said"]["transfers"] == [{"from": "actor-2", "to": "actor-1", "resource": "energy", "amount": 500}]
    assert [v["words"] for v in story["judged"]["violations"]] == [
        "transfers[0]: 500 kWh is above 50 kWh, the most that one transfer may move",
        "transfers[0]: 500 kWh is more than the 0 kWh that the sender has available",
    ]
    assert story["seen"]["world_state"]["epoch"] == 1
    assert story["seen"]["world_state"]["actors"][0]["balances"]["energy"] == 100
    later = told[1](2, "shade", 1)
    assert later["seen"]["world_state"]["epoch"] == 2
    assert later["said"]["fault"] == {"code": "no_answer", "detail": "empty"}


def test_tells_the_same_from_a_journal_in_a_file(told, tmp_path):
    run, tell = told
    write_journal(tmp_path / "journal.jsonl", run.records)
    with open_source(str(tmp_path / "journal.jsonl"), tmp_path) as source:
        found = explain(source, worlds.Round(1, "planner", 2).proposal_id.upper())
        assert found == tell(1, "planner", 2)
        with pytest.raises(BadInput, match="there is no proposal"):
            explain(source, worlds.Round(1, "shade", 1).proposal_id)


@pytest.mark.parametrize("proposal_id", ["x", "", str(uuid.UUID(int=7)), "' OR 1=1 --"])
def test_says_that_there_is_no_such_proposal(told, tmp_path, proposal_id):
    run, _ = told
    first = worlds.Round(1, "planner", 1).proposal_id
    export(run, tmp_path)
    with open_source(run.run_id, tmp_path) as source, pytest.raises(BadInput, match=f"its first is {first}"):
        explain(source, proposal_id)


def test_says_that_there_is_no_proposal_at_all(tmp_path):
    world = worlds.seed_world()
    world.close()
    export(world.run(), tmp_path)
    with open_source("0123456789abcdef", tmp_path) as source, pytest.raises(BadInput, match="it has none"):
        explain(source, str(uuid.UUID(int=7)))
