"""What the app does for a caller, without HTTP: rounds, proposals, people's acts, meters, epochs, what is handed on.

Each writing method is one command of the one writer, and answers once that is durable. Asked again, it answers what was
recorded. Amounts in what it returns are in units, times are text.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any, NamedTuple, TypeVar

from gridgov import postgres
from gridgov.amounts import plain
from gridgov.auth import PLANNER, Caller, check_name
from gridgov.decide import decide, faulted, overridden, reversed_, settled
from gridgov.engine import METERED, Engine, Metered
from gridgov.errors import BadInput, Conflict, GridgovError
from gridgov.journal import (
    Activation,
    Close,
    ConstraintsChange,
    Control,
    Decision,
    Flow,
    JournalRecord,
    Once,
    Registration,
    Settlement,
    canonical,
    decode,
)
from gridgov.model import (
    BOUNDARY,
    BOUNDARY_TYPE,
    Actor,
    Code,
    LedgerEntry,
    Malformed,
    Outcome,
    Proposal,
    Resource,
    Round,
    Seen,
    Transfer,
    Unavailable,
    Violation,
    uuid5,
)
from gridgov.outcome import Outcomes, outcome_json, touched, transfers_of
from gridgov.postgres import Interaction, Pair, Pool, Reader, Writer
from gridgov.prompt import Request, exact_json, load, render
from gridgov.propose import Answer, Context
from gridgov.reply import about, answer_of, parse_body, printable
from gridgov.state import State
from gridgov.wire import (
    Json,
    constraints_from_json,
    constraints_json,
    decision_json,
    declared,
    known,
    timestamp,
    transfer_json,
    violation_json,
    world_state_json,
)
from gridgov.words import words

PROMPT = "propose_transfer"
MODEL = "gemini-3.8-flash"
"""What is asked, and whom, where no activation says so."""

FAILURES = ("quota", "transport", "auth", "config")
"""The ways in which a proposer is unavailable."""

ROUNDS_OPEN = 64
"""Most rounds of one proposer in an epoch."""

ROUNDS_CLOSED = 4
EPOCHS_KNOWN = 1_000
"""The rounds of a closed epoch whose ids are recognised, and for how many epochs back."""

HISTORY = 3
HISTORY_EPOCHS = 64
"""How many of its last decisions a proposer is shown, and how many epochs back they are looked for."""

HANDED_OUT = 1_000
"""So many requests are remembered, to be kept beside their replies."""

RENDERED = 32
"""So many contexts are kept ready."""

LAG_MAX = 10_000
"""The outbox is counted no further."""

DEADLINE_S = 30.0

Resources = Mapping[str, Resource]
Balances = dict[Pair, tuple[int, int]]
Act = Registration | ConstraintsChange | Control | Activation
T = TypeVar("T")

_DIGEST = re.compile(r"(\d{1,9})-(\d{1,18})-(\d{1,18})-[0-9a-f]{32}", re.ASCII)


class NotReady(GridgovError):
    """The grid has no genesis; run `gridgov up` or `gridgov migrate --scenario FILE`."""

    def __init__(self) -> None:
        super().__init__("the grid has no genesis; run `gridgov up` or `gridgov migrate --scenario FILE`")


class NotThere(GridgovError):
    """What was asked for does not exist."""


class Forbidden(GridgovError):
    """This key may not do that."""


class Recorded(Conflict):
    """The id stands for something else: `recorded` says what came of it, `differs` in what they differ."""

    def __init__(self, message: str, recorded: Json | None, differs: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.recorded = recorded
        self.differs = list(differs)


class Failure(NamedTuple):
    """A proposer that gave no answer, as a client reports it."""

    kind: str
    status: int | None = None
    code: str | int | None = None


class Submission(NamedTuple):
    """What a client has to say about a round: exactly one of proposal (JSON), reply (Gemini's body) and failure."""

    proposal_id: str
    digest: str | None = None
    request_key: str | None = None
    proposal: Any = None
    reply: bytes | None = None
    failure: Failure | None = None


class Asked(NamedTuple):
    """An act that a person asks for: under which key it counts once, what exactly is asked, and why."""

    key: str
    route: str
    body: Json
    dry_run: bool = False

    @property
    def reason(self) -> str:
        """Why."""
        return str(self.body["reason"])

    def once(self, caller: Caller) -> Once:
        """The request that this is, however often it comes."""
        text = canonical({"body": self.body, "route": self.route})
        return Once(uuid5(f"request/{caller.name}/{self.key}"), hashlib.sha256(text.encode()).hexdigest())


class _Told(NamedTuple):
    """What became of a command. Without balances it was recorded before; `differs` says that it was other input."""

    record: JournalRecord
    held: Decision | None = None
    balances: Balances | None = None
    differs: str = ""


class _NotHeld(GridgovError):
    """Nothing waits under this id."""


# --- small questions --------------------------------------------------------------------------------------------------


def seen_of(digest: str) -> Seen:
    """What a world_state_digest says was seen. Raises BadInput where it is none."""
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise BadInput("this is no world_state_digest; send the one of GET /v1/context", ("world_state_digest",))
    return Seen(int(match[1]), int(match[2]), int(match[3]))


def digest_of(seen: Seen, world: Json) -> str:
    """The world_state_digest: what was seen, and a digest of how it looked."""
    sha = hashlib.sha256(exact_json(world).encode()).hexdigest()
    return f"{seen.epoch}-{seen.constraints_seq}-{seen.entries}-{sha[:32]}"


def _ready(state: State) -> State:
    if not state.seq:
        raise NotReady
    return state


def _known_pairs(state: State, pairs: Iterable[Pair]) -> list[Pair]:
    """Those of actors and resources that there are."""
    return [(actor, name) for actor, name in pairs if actor in state.actors and name in state.resources]


def _moved(payload: Outcomes, held: Decision | None) -> dict[Pair, int]:
    """By how much an outcome changed each balance."""
    net: dict[Pair, int] = {}
    if payload.outcome is Outcome.EXECUTED:
        for giver, taker, resource, amount in transfers_of(payload, held):
            assert type(amount) is int, "what was executed was exact"
            net[giver, resource] = net.get((giver, resource), 0) - amount
            net[taker, resource] = net.get((taker, resource), 0) + amount
    return net


def _watch(
    engine: Engine, id_: str, pairs: Iterable[Pair], act: Callable[[], object], held: Decision | None = None
) -> _Told:
    """Acts under an id, and tells what is recorded under it, with the balances before and after."""
    state = _ready(engine.state)
    before = {pair: state.balance(*pair) for pair in _known_pairs(state, pairs)}
    seq = state.seq
    try:
        act()
    except Conflict as conflict:
        recorded = engine.ledger.answered(id_)
        if recorded is None:
            raise
        return _Told(recorded, differs=str(conflict))
    recorded = engine.ledger.answered(id_)
    assert recorded is not None, "it was recorded now, or before"
    if state.seq == seq:
        return _Told(recorded)
    return _Told(recorded, held, {pair: (amount, state.balance(*pair)) for pair, amount in before.items()})


def _differences(recorded: JournalRecord, given: Answer | Malformed | Unavailable) -> list[str]:
    """In what a submission differs from the decision that was recorded under its id."""
    decision = recorded.payload
    if not isinstance(decision, Decision):
        return ["kind"]
    kinds = {Outcome.MALFORMED: Malformed, Outcome.UNAVAILABLE: Unavailable}
    if type(given) is not kinds.get(decision.outcome, Answer):
        return ["kind"]
    if not isinstance(given, Answer):
        return ["model_response" if isinstance(given, Malformed) else "unavailable"]
    return [name for name in ("transfers", "reasoning") if getattr(given, name) != getattr(decision, name)]


class Rounds:
    """The ids of rounds, so that an id says which round it is of."""

    def __init__(self) -> None:
        self._ids: dict[str, dict[str, Round]] = {}
        self._next: dict[str, int] = {}
        self._lock = threading.Lock()

    def find(self, id_: str, proposer: str, epoch: int) -> Round | None:
        """The proposer's round with this id: of the open epoch, or of the last ones that closed."""
        with self._lock:
            ids = self._ids.setdefault(proposer, {})
            first = max(1, epoch - EPOCHS_KNOWN)
            for e in range(max(first, self._next.get(proposer, first)), epoch + 1):
                for n in range(1, 1 + (ROUNDS_OPEN if e == epoch else ROUNDS_CLOSED)):
                    round_ = Round(e, proposer, n)
                    ids[round_.proposal_id] = round_
            self._next[proposer] = max(epoch + 1, self._next.get(proposer, 0))
            found = ids.get(id_)
            if found is not None and found.epoch < first:
                found = None
            if len(ids) > 2 * EPOCHS_KNOWN * ROUNDS_CLOSED + ROUNDS_OPEN:
                self._ids[proposer] = {i: r for i, r in ids.items() if r.epoch >= first}
        return found


class _Handed(NamedTuple):
    """A request as it was handed out."""

    round: Round
    request: Request


class Service:
    """The use cases of a grid, for many threads."""

    def __init__(
        self,
        writer: Writer,
        reader: Reader,
        acks: Pool,
        clock: Callable[[], int],
        public_url: str,
        *,
        deadline_s: float = DEADLINE_S,
        on_outcome: Callable[[Outcome], None] = lambda _: None,
    ) -> None:
        """`acks` are sessions that may acknowledge; `clock` gives microseconds; `on_outcome` hears of new outcomes."""
        self.writer, self.reader = writer, reader
        self._acks, self._clock, self._public_url = acks, clock, public_url
        self._deadline_s, self._on_outcome = deadline_s, on_outcome
        self._resources: Resources = {}
        self._rounds = Rounds()
        self._handed: OrderedDict[str, _Handed] = OrderedDict()
        self._contexts: OrderedDict[tuple[Any, ...], Json] = OrderedDict()
        self._rendering = threading.Lock()

    # --- how things are done ------------------------------------------------------------------------------------------

    def _look(self, question: Callable[[State], T]) -> T:
        """What a question comes to; the state neither leaves it nor changes. Raises NotReady without a genesis."""
        return self.reader.look(lambda state: question(_ready(state)))

    def _run(self, command: Callable[[Engine], T], id_: str | None = None, kept: Interaction | None = None) -> T:
        """What a command comes to, once that is durable.

        In a rush, the writer takes the id that it is told for new, and finds out when it would be recorded twice. What
        a command refuses is not recorded, so one that may do so because it came before must be told none.
        """
        return self.writer.enqueue(command, id_, kept).result(self._deadline_s)

    @property
    def resources(self) -> Resources:
        """What is shared; it never changes after the genesis."""
        if not self._resources:
            self._resources = self._look(lambda state: dict(state.resources))
        return self._resources

    def _answer(self, told: _Told, differs: Sequence[str] = ()) -> Json:
        """The outcome that a command came to. Raises Recorded where it was other input."""
        payload = told.record.payload
        if told.differs:
            raise Recorded(told.differs, self._recorded(told.record), differs)
        if told.balances is None:
            return self._recorded(told.record)
        assert isinstance(payload, Outcomes), "asked for only where there is an outcome"
        self._on_outcome(payload.outcome)
        return self._told(told.record, told.held, told.balances)

    def _told(self, record: JournalRecord, held: Decision | None, balances: Balances, dry_run: bool = False) -> Json:
        return outcome_json(
            record,
            decision=held,
            balances=balances,
            resources=self.resources,
            public_url=self._public_url,
            dry_run=dry_run,
        )

    def _recorded(self, record: JournalRecord) -> Json:
        """A record as it was answered first."""
        if isinstance(record.payload, Outcomes):
            return self._later([record])[0]
        return self._act_json(record)

    def _later(self, records: Sequence[JournalRecord]) -> list[Json]:
        """Outcomes in order of seq, with the balances as they were then."""
        ask = self.reader.pool.ask
        ids = [record.payload.proposal_id for record in records if isinstance(record.payload, Settlement)]
        found = ask(lambda c: postgres.decided(c, ids, len(ids))) if ids else []
        held = {d.payload.proposal_id: d.payload for d in found if isinstance(d.payload, Decision)}
        deciding = [
            held.get(record.payload.proposal_id) if isinstance(record.payload, Settlement) else None
            for record in records
        ]
        named = [touched(record.payload, own) for record, own in zip(records, deciding, strict=True)]
        pairs = self._look(lambda state: [_known_pairs(state, own) for own in named])
        asked = [(record.seq, own) for record, own in zip(records, pairs, strict=True)]
        afters = ask(lambda c: postgres.balances_after(c, asked))
        told = []
        for record, own, shown, after in zip(records, deciding, pairs, afters, strict=True):
            assert isinstance(record.payload, Outcomes), "the caller gives outcomes"
            by = _moved(record.payload, own)
            balances = {pair: (after.get(pair, 0) - by.get(pair, 0), after.get(pair, 0)) for pair in shown}
            told.append(self._told(record, own, balances))
        return told

    def _would(self, state: State, kind: str, payload: Outcomes, held: Decision | None = None) -> _Told:
        """What a dry run shows."""
        by = _moved(payload, held)
        before = {pair: state.balance(*pair) for pair in _known_pairs(state, touched(payload, held))}
        balances = {pair: (amount, amount + by.get(pair, 0)) for pair, amount in before.items()}
        record = JournalRecord(0, state.epoch, kind, max(self._clock(), state.at), payload, "", b"")
        return _Told(record, held, balances)

    def _dry(self, question: Callable[[State], _Told]) -> Json:
        told = self._look(question)
        return self._told(told.record, told.held, told.balances or {}, True)

    # --- proposals ----------------------------------------------------------------------------------------------------

    def propose(self, caller: Caller, submission: Submission, dry_run: bool = False) -> Json:
        """Judges what a client submits, and records what comes of it; the same again gets the same.

        Raises Recorded where the id was used with other input, BadInput where a client's proposal is none, Forbidden
        where the round is not this key's.
        """
        given = self._given(submission)
        seen = None if submission.digest is None else seen_of(submission.digest)
        id_, at = submission.proposal_id, self._clock()

        def proposal(state: State) -> Proposal | Decision:
            round_ = self._round(caller, id_, state.epoch)
            proposer, n = (caller.name, 0) if round_ is None else (round_.proposer, round_.n)
            if not isinstance(given, Answer):
                return faulted(id_, proposer, n, given)
            had = seen
            if had is None and round_ is not None:
                had = Seen(round_.epoch, state.constraints_seq, state.entries)
            return Proposal(id_, proposer, n, given.transfers, given.reasoning, had)

        def command(engine: Engine) -> _Told:
            asked = proposal(_ready(engine.state))
            if isinstance(asked, Proposal):
                pairs = [(actor, t.resource) for t in asked.transfers for actor in (t.actor_from, t.actor_to)]
                return _watch(engine, id_, dict.fromkeys(pairs), lambda: engine.propose(asked, at))
            assert not isinstance(given, Answer), "it is a fault"
            return _watch(engine, id_, (), lambda: engine.fail(id_, asked.proposer, asked.n, given, at))

        def judge(state: State) -> _Told:
            asked = proposal(state)
            return self._would(state, "proposal", decide(state, asked) if isinstance(asked, Proposal) else asked)

        if dry_run:
            return self._dry(judge)
        told = self._run(command, id_, self._interaction(submission, at))
        return self._answer(told, _differences(told.record, given) if told.differs else ())

    def _given(self, submission: Submission) -> Answer | Malformed | Unavailable:
        """What was submitted. Raises BadInput where a client's own proposal is malformed: nothing is recorded then."""
        if submission.reply is not None:
            return parse_body(200, submission.reply, self.resources)
        if submission.failure is not None:
            kind, status, code = submission.failure
            known(kind, FAILURES, "kind", ("unavailable", "kind"))
            parts = (f"HTTP {status}" if status is not None else "", str(code) if code is not None else "")
            return Unavailable(kind, printable(" ".join(part for part in parts if part)))
        proposal = submission.proposal
        if isinstance(proposal, dict) and "proposal_id" in proposal:
            inside = proposal["proposal_id"]
            if not isinstance(inside, str) or inside.lower() != submission.proposal_id:
                raise BadInput("proposal_id differs from the one beside it", ("proposal", "proposal_id"))
            proposal = {key: value for key, value in proposal.items() if key != "proposal_id"}
        answer = answer_of(proposal, self.resources)
        if isinstance(answer, Malformed):
            raise BadInput(f"this is no proposal: {answer.detail} ({answer.code})", ("proposal",))
        return answer

    def _round(self, caller: Caller, id_: str, epoch: int) -> Round | None:
        """The round that an id is of, of those that this key may answer. Raises Forbidden for the planner's."""
        if caller.mandate is None:
            return self._rounds.find(id_, PLANNER, epoch)
        if self._rounds.find(id_, PLANNER, epoch) is not None:
            raise Forbidden(
                f"{id_} is a round of {PLANNER}; a key with a mandate has rounds of its own, see /v1/context"
            )
        return self._rounds.find(id_, caller.name, epoch)

    def _interaction(self, submission: Submission, at: int) -> Interaction | None:
        """The exchange with a model that led to this, if any, with the request as it was handed out."""
        if submission.reply is None and (submission.failure is None or submission.request_key is None):
            return None
        key, body, failure = submission.request_key or "", submission.reply or b"", submission.failure
        with self._rendering:
            handed = self._handed.get(key)
        said = about(body)
        told: Json = {"attempts": 1, "finish_reason": said.finish_reason, "model_answered": said.model}
        told |= {"failure": "" if failure is None else failure.kind, "origin": "recorded"}
        if handed is not None:
            request = handed.request
            told |= {"components": request.components, "model_asked": request.model, "parameters": request.parameters}
            told |= {"prompt": request.prompt, "round": handed.round._asdict(), "sample": request.sample}
        return Interaction(
            submission.proposal_id,
            key,
            at,
            b"" if handed is None else exact_json(handed.request.body).encode(),
            200 if failure is None else failure.status,
            body,
            canonical(told),
            canonical(dict(said.usage)) if said.usage else None,
        )

    def proposal(self, proposal_id: str) -> Json:
        """A proposal and what became of it in the end. Raises NotThere."""
        record = self.reader.answered(proposal_id)
        if record is None or not isinstance(record.payload, Decision):
            raise NotThere(f"there is no proposal {proposal_id}")
        settlement = self.reader.pool.ask(lambda c: postgres.settlement_of(c, proposal_id))
        decided = decision_json(record.payload, self.resources)
        shown = {key: decided[key] for key in ("proposer", "n", "transfers", "granted", "reasoning") if key in decided}
        found = self._later([record if settlement is None else settlement])[0]
        return {**found, "proposal": shown, "decided": {"seq": record.seq, "outcome": record.payload.outcome.value}}

    # --- context ------------------------------------------------------------------------------------------------------

    def context(self, caller: Caller, prompt: str | None = None, extra: bool = False) -> Json:
        """The open round of this key, and the request that puts it to a model. Raises NotThere for an unknown prompt.

        It repeats until the round has an outcome; `extra` takes the first round of this epoch without one.
        """
        proposer = PLANNER if caller.mandate is None else caller.name
        for _ in range(100):  # until nothing changes between the questions
            seq, epoch, active = self._look(lambda state: (state.seq, state.epoch, state.active.get("active")))
            name = prompt or (active.prompt if active is not None else PROMPT)
            key = (seq, name, active.model if active is not None else MODEL, proposer, caller.mandate, extra)
            with self._rendering:
                found = self._contexts.get(key) or self._rendered(key, epoch)
                if found is not None:
                    self._contexts[key] = found
                    while len(self._contexts) > RENDERED:
                        self._contexts.popitem(last=False)
                    return found
        raise postgres.Unreachable("the grid changes too fast to be shown; ask again")

    def _rendered(self, key: tuple[Any, ...], epoch: int) -> Json | None:
        """A context as of a seq; None where that is not the head any more."""
        seq, name, model, proposer, mandate, extra = key
        try:
            template = load(name)
        except BadInput as error:
            raise NotThere(str(error)) from None
        mine = {Round(epoch, proposer, n).proposal_id: n for n in range(1, ROUNDS_OPEN + 1)}
        earlier = range(max(1, epoch - HISTORY_EPOCHS), epoch)
        past = [Round(e, proposer, n).proposal_id for e in earlier for n in range(1, ROUNDS_CLOSED + 1)]
        records = self.reader.pool.ask(lambda c: postgres.decided(c, [*mine, *past], ROUNDS_OPEN + HISTORY))
        decided = {
            mine[d.proposal_id]: r for r in records if isinstance(d := r.payload, Decision) and d.proposal_id in mine
        }
        free = next((n for n in range(1, ROUNDS_OPEN + 1) if n not in decided), ROUNDS_OPEN)
        round_ = Round(epoch, proposer, free if extra else 1)
        history = [r.payload for r in records[:HISTORY] if isinstance(r.payload, Decision)]
        history.reverse()

        def question(state: State) -> tuple[Request, Json, Seen, bool] | None:
            if state.seq != seq:
                return None
            context = Context(round_, state, history=tuple(history), mandate=mandate)
            request = render(template, context, model=model)
            return request, world_state_json(context.world_state), state.seen, state.paused

        shown = self._look(question)
        if shown is None:
            return None
        request, world, seen, paused = shown
        self._handed[request.request_key] = _Handed(round_, request)
        while len(self._handed) > HANDED_OUT:
            self._handed.popitem(last=False)
        answer: Json = {
            "round": round_._asdict(),
            "proposal_id": round_.proposal_id,
            "paused": paused,
            "world_state": world,
            "world_state_digest": digest_of(seen, world),
            "request": {"model": request.model, "path": request.path, "body": request.body},
            "request_key": request.request_key,
            "prompt": {"name": template.name, "version": template.version, "digest": template.digest},
        }
        if round_.n in decided:
            answer["decided"] = self._recorded(decided[round_.n])
        return answer

    # --- what people do: with an outcome ------------------------------------------------------------------------------

    def settle(self, caller: Caller, asked: Asked, proposal_id: str, decision: str) -> Json:
        """Approves or rejects what is held, once. Raises NotThere, or Recorded where it was settled already."""
        operator, at, once = caller.name, self._clock(), asked.once(caller)

        def command(engine: Engine) -> _Told:
            hold = _ready(engine.state).holds.get(proposal_id)
            if hold is None and engine.ledger.answered(once.request) is None:
                raise _NotHeld
            held = None if hold is None else hold.decision
            pairs = () if held is None else touched(held)
            act = partial(engine.settle, proposal_id, decision, at, operator, asked.reason, once=once)
            return _watch(engine, once.request, pairs, act, held)

        def judge(state: State) -> _Told:
            if proposal_id not in state.holds:
                raise _NotHeld
            held = state.holds[proposal_id].decision
            return self._would(state, "settlement", settled(state, proposal_id, decision, operator, asked.reason), held)

        try:
            return self._dry(judge) if asked.dry_run else self._answer(self._run(command))
        except _NotHeld:
            found = self.proposal(proposal_id)
        raise Recorded(f"proposal {proposal_id} is not held: it was {found['outcome']}", found)

    def override(self, caller: Caller, asked: Asked) -> Json:
        """Moves by hand, whatever the constraints. Raises BadInput where a transfer could never be."""
        answer = answer_of({"transfers": asked.body["transfers"]}, self.resources)
        if isinstance(answer, Malformed):
            raise BadInput(f"these are no transfers: {answer.detail} ({answer.code})", ("transfers",))
        transfers, operator, at, once = answer.transfers, caller.name, self._clock(), asked.once(caller)
        pairs = dict.fromkeys((actor, t.resource) for t in transfers for actor in (t.actor_from, t.actor_to))

        def command(engine: Engine) -> _Told:
            act = partial(engine.override, transfers, at, operator, asked.reason, once=once)
            return _watch(engine, once.request, pairs, act)

        def judge(state: State) -> _Told:
            return self._would(state, "override", overridden(state, transfers, operator, asked.reason))

        return self._dry(judge) if asked.dry_run else self._answer(self._run(command))

    def reverse_proposal(self, caller: Caller, asked: Asked, proposal_id: str) -> Json:
        """Takes all entries of a proposal back, once. Raises NotThere, Conflict where one was taken back before."""
        entries = self.reader.entries_of(proposal_id)
        if not entries:
            found = self.proposal(proposal_id)
            raise Recorded(f"proposal {proposal_id} was {found['outcome']} and moved nothing", found)
        return self._reverse(caller, asked, entries, proposal_id)

    def reverse_entry(self, caller: Caller, asked: Asked, entry: int) -> Json:
        """Takes one entry back, once. Raises NotThere, Conflict where it was taken back before."""
        entries = self.reader.entries([entry])
        if not entries:
            raise NotThere(f"there is no ledger entry {entry}")
        return self._reverse(caller, asked, entries, None)

    def _reverse(self, caller: Caller, asked: Asked, entries: list[LedgerEntry], proposal_id: str | None) -> Json:
        operator, at, once = caller.name, self._clock(), asked.once(caller)
        newest = reversed(entries)
        pairs = dict.fromkeys((actor, e.resource) for e in newest for actor in (e.actor_to, e.actor_from))

        def command(engine: Engine) -> _Told:
            act = partial(engine.reverse, entries, at, operator, asked.reason, proposal_id, once=once)
            return _watch(engine, once.request, pairs, act)

        def judge(state: State) -> _Told:
            payload = reversed_(state, entries, operator, asked.reason, proposal_id)
            return self._would(state, "reversal", payload)

        return self._dry(judge) if asked.dry_run else self._answer(self._run(command))

    # --- what people do: without --------------------------------------------------------------------------------------

    def _act(self, caller: Caller, asked: Asked, prepare: Callable[[State], Act]) -> Json:
        """Records what `prepare` makes of the state, once. Raises Recorded where the key stands for other input."""
        at, once = self._clock(), asked.once(caller)

        def judge(state: State) -> JournalRecord:
            return JournalRecord(0, state.epoch, _kind(payload := prepare(state)), max(at, state.at), payload, "", b"")

        def command(engine: Engine) -> tuple[JournalRecord, bool]:
            found = engine.ledger.answered(once.request)
            if found is None:
                return _append(engine, prepare(_ready(engine.state)), at, once), True
            return found, getattr(found.payload, "input", "") == once.input

        if asked.dry_run:
            return {**self._act_json(self._look(judge)), "seq": None, "digest": None, "dry_run": True}
        record, same = self._run(command)
        if not same:
            raise Recorded("this Idempotency-Key was used before, for something else; use a new one",
                           self._recorded(record), ["request"])  # fmt: skip
        return self._act_json(record)

    def _act_json(self, record: JournalRecord) -> Json:
        """A record without an outcome: what it is, and what is in force from there on."""
        payload = record.payload
        found: Json = {"kind": record.kind, "seq": record.seq, "digest": record.digest.hex(), "epoch": record.epoch}
        found["at"] = timestamp(record.at)
        if isinstance(payload, Control):
            found["paused"] = payload.paused
        elif isinstance(payload, ConstraintsChange):
            found["constraints"] = constraints_json(payload.constraints, self.resources)
        elif isinstance(payload, Registration):
            found["actors"] = [actor._asdict() for actor in payload.actors]
            found["frozen"] = dict(payload.frozen)
        elif isinstance(payload, Activation):
            found |= {"prompt": payload.prompt, "model": payload.model, "prompt_digest": payload.digest}
            found["role"] = payload.role
        return found | {key: getattr(payload, key, "") for key in ("operator", "reason")}

    def control(self, caller: Caller, asked: Asked) -> Json:
        """Pauses or resumes."""
        paused = asked.body["action"] == "pause"
        return self._act(caller, asked, lambda _: Control(paused, caller.name, asked.reason))

    def constrain(self, caller: Caller, asked: Asked) -> Json:
        """Puts the whole set of constraints in force. Raises Conflict where another change came in between."""
        expected = asked.body.get("expected_seq")

        def prepare(state: State) -> Act:
            if expected is not None and expected != state.constraints_seq:
                raise Conflict(f"the constraints are those of record {state.constraints_seq}, not {expected}; "
                               f"look at them again")  # fmt: skip
            constraints = constraints_from_json(asked.body["constraints"], state.resources, state.actors)
            return ConstraintsChange(constraints, caller.name, asked.reason)

        return self._act(caller, asked, prepare)

    def register(self, caller: Caller, asked: Asked) -> Json:
        """Adds an actor. Raises Conflict where there is one of this name."""
        actor = Actor(asked.body["id"], asked.body["type"])
        check_name(actor.id, "id of an actor", ("id",))
        check_name(actor.type, "type of an actor", ("type",))
        if actor.type == BOUNDARY_TYPE:
            raise BadInput("there is one boundary, and it is there already; choose another type", ("type",))

        def prepare(state: State) -> Act:
            if actor.id in state.actors:
                raise Conflict(f"there is an actor {actor.id} already")
            return Registration((actor,), operator=caller.name, reason=asked.reason)

        return self._act(caller, asked, prepare)

    def freeze(self, caller: Caller, asked: Asked, actor: str) -> Json:
        """Freezes or thaws an actor. Raises NotThere."""

        def prepare(state: State) -> Act:
            if actor not in state.actors or actor == BOUNDARY:
                raise NotThere(f"there is no actor {actor}")
            frozen = {actor: bool(asked.body["frozen"])}
            return Registration(frozen=frozen, operator=caller.name, reason=asked.reason)

        return self._act(caller, asked, prepare)

    def activate(self, caller: Caller, asked: Asked) -> Json:
        """Puts a prompt and a model in force."""
        body = asked.body
        try:
            template = load(body["prompt"])
        except BadInput as error:
            raise BadInput(str(error), ("prompt",)) from None
        role = body.get("role", "active")
        made = Activation(template.name, body["model"], template.digest, role, caller.name, asked.reason)
        return self._act(caller, asked, lambda _: made)

    # --- meters and time ----------------------------------------------------------------------------------------------

    def flows(self, reading_id: str, epoch: int, readings: Sequence[Json]) -> Json:
        """Records a set of meter readings, once; late ones go into the open epoch, marked."""
        resources, at = self.resources, self._clock()
        metered = []
        for index, reading in enumerate(readings):
            known(reading["kind"], METERED, "kind", ("readings", index, "kind"))
            known(reading["resource"], resources, "resource", ("readings", index, "resource"))
            amount = declared(reading["amount"], resources[reading["resource"]], ("readings", index, "amount"))
            metered.append(Metered(reading["kind"], reading["actor"], reading["resource"], amount))
        asked = canonical({"epoch": epoch, "readings": [list(reading) for reading in metered]})
        once = Once(uuid5(f"reading/{reading_id}"), hashlib.sha256(asked.encode()).hexdigest())

        def command(engine: Engine) -> tuple[list[JournalRecord], bool]:
            _ready(engine.state)
            try:
                return engine.meter("meter", metered, at, epoch=epoch, once=once), True
            except Conflict:
                ids = [uuid5(f"{once.request}/{kind}") for kind in METERED]
                return [record for id_ in ids if (record := engine.ledger.answered(id_)) is not None], False

        records, same = self._run(command)
        found = self._flows_json(reading_id, records)
        if not same:
            raise Recorded(f"reading {reading_id!r} was sent before, with other readings", found, ["readings"])
        order = {kind: [r for r in found["readings"] if r["kind"] == kind] for kind in METERED}
        found["readings"] = [order[reading.kind].pop(0) for reading in metered]
        return found

    def _flows_json(self, reading_id: str, records: Sequence[JournalRecord]) -> Json:
        shown, late = [], False
        for record in records:
            flow = record.payload
            assert isinstance(flow, Flow), "meters make flows"
            late = late or flow.read_for is not None
            for actor, resource, requested, applied, entry in flow.readings:
                scale = self.resources[resource].scale
                amounts = {"requested": _units(requested, scale), "applied": _units(applied, scale)}
                shown.append({"actor": actor, "resource": resource, "kind": flow.kind, **amounts, "entry": entry})
        last = records[-1]
        found = {"reading_id": reading_id, "epoch": last.epoch, "late": late, "readings": shown}
        return {**found, "seq": last.seq, "digest": last.digest.hex()}

    def close(self, epoch: int) -> Json:
        """Closes the open epoch if it is this one, and what has to expire with it; once."""
        at = self._clock()

        def command(engine: Engine) -> tuple[JournalRecord, list[Settlement]] | None:
            state = _ready(engine.state)
            if epoch > state.epoch:
                raise Conflict(f"epoch {state.epoch} is open; epoch {epoch} cannot be closed yet")
            if epoch < state.epoch:
                return None
            expired = engine.expire(at)
            return engine.close(at), expired

        done = self._run(command)
        if done is not None:
            record, expired = done
            for settlement in expired:
                self._on_outcome(settlement.outcome)
            return {**_close_json(record), "already": False, "expired": [s.proposal_id for s in expired]}
        closed = self.reader.pool.ask(lambda c: postgres.close_of(c, epoch))
        if closed is None:
            raise NotThere(f"there was no epoch {epoch}")
        return {**_close_json(closed), "already": True, "expired": []}

    # --- reads --------------------------------------------------------------------------------------------------------

    def world_state(self, epoch: int | None = None) -> Json:
        """The WorldState of now, or at the close of an epoch. Raises NotThere where that has not closed."""
        _ = self.resources  # there is a genesis
        try:
            return world_state_json(self.reader.world_state(epoch))
        except BadInput as error:
            raise NotThere(str(error)) from None

    def proposals(self, after: int, limit: int, **filters: Any) -> Json:
        """A page of proposals with their final outcomes, in order of seq."""
        rows = self.reader.rows("proposals_page", after=after, limit=limit, **filters)
        return _page([self._proposal_json(row) for row in rows], limit, "seq")

    def _proposal_json(self, row: Json) -> Json:
        resources = self.resources
        transfers = [Transfer(t["from"], t["to"], t["resource"], _minor(t["amount"])) for t in row["transfers"]]
        granted = row["granted"]
        found = {key: row[key] for key in ("seq", "epoch", "proposer", "n", "outcome", "reasoning", "entries", "held")}
        found["proposal_id"], found["at"] = str(row["proposal_id"]), _moment(row["decided_at"])
        found["transfers"] = [transfer_json(t, resources) for t in transfers]
        if granted is not None:
            pairs = zip(transfers, granted, strict=True)
            found["granted"] = [transfer_json(t._replace(amount=_minor(amount)), resources) for t, amount in pairs]
        found["violations"] = [_violation_json(v, resources) for v in row["violations"]]
        for key in ("state_moved", "held_until", "settlement", "settled_epoch", "settled_seq", "fault", "detail"):
            if row[key]:
                found[key] = row[key]
        return {**found, "digest": row["digest"].hex()}

    def ledger(self, after: int, limit: int, actor: str | None = None, **filters: Any) -> Json:
        """A page of ledger entries, in order of id."""
        own = None if actor is None else uuid5(actor)
        rows = self.reader.rows("ledger_page", after=after, limit=limit, actor=own, **filters)
        return _page([_entry_json(row) for row in rows], limit, "id")

    def entry(self, id_: int) -> Json:
        """One ledger entry. Raises NotThere."""
        found = self.ledger(id_ - 1, 1, resource=None, kind=None, epoch=None)["items"]
        if not found or found[0]["id"] != id_:
            raise NotThere(f"there is no ledger entry {id_}")
        back = self._look(lambda state: state.reversed.get(id_))
        return found[0] if back is None else {**found[0], "reversed_by": back}

    def journal(self, after: int, limit: int, kind: str | None = None) -> Json:
        """A page of journal records as they are chained; amounts in them are minor units."""
        rows = self.reader.rows("journal_page", after=after, limit=limit, kind=kind)
        items = []
        for row in rows:
            found = {key: row[key] for key in ("seq", "epoch", "kind", "body")}
            payload = json.loads(row["body"])["payload"]
            items.append({**found, "at": _moment(row["at"]), "payload": payload, "digest": row["digest"].hex()})
        return _page(items, limit, "seq")

    def constraints(self) -> Json:
        """The constraints in force, and the record that set them."""
        seq, found = self._look(lambda state: (state.constraints_seq, state.constraints))
        return {"seq": seq, "constraints": constraints_json(found, self.resources)}

    def controls(self) -> Json:
        """Whether the grid is paused, what is held, and which prompts and models are in force."""

        def question(state: State) -> Json:
            active = {a.role: {"prompt": a.prompt, "model": a.model} for a in state.active.values()}
            found = {"paused": state.paused, "epoch": state.epoch, "seq": state.seq, "digest": state.digest.hex()}
            return {**found, "entries": state.entries, "holds": list(state.holds), "active": active}

        return self._look(question)

    def actors(self) -> Json:
        """Everyone but the boundary."""

        def question(state: State) -> list[Json]:
            own = [actor for actor in state.actors.values() if actor.id != BOUNDARY]
            return [{"id": a.id, "uuid": uuid5(a.id), "type": a.type, "frozen": a.id in state.frozen} for a in own]

        return {"items": self._look(question), "next": None}

    # --- what is handed on --------------------------------------------------------------------------------------------

    def outbox(self, after: int, limit: int) -> Json:
        """A page of outcomes that were not acknowledged yet, in order of seq."""
        _ = self.resources  # there is a genesis
        rows = self.reader.rows("outbox_page", after=after, limit=limit)
        return _page(self._later([decode(row["body"], row["digest"]) for row in rows]) if rows else [], limit, "seq")

    def acknowledge(self, seq: int, reference: str) -> Json:
        """Notes that an outcome was handed on, as what; the second time changes nothing. Raises NotThere."""
        at = self._clock()
        try:
            self._acks.ask(lambda connection: postgres.acknowledge(connection, seq, reference, at))
        except BadInput as error:
            raise NotThere(str(error)) from None
        return {"seq": seq, "acknowledged": True}

    def lag(self) -> int:
        """How many outcomes wait to be handed on, counted up to `LAG_MAX`."""
        return int(self.reader.rows("outbox_lag", most=LAG_MAX)[0]["count"])

    def last_outcome(self) -> tuple[int, float] | None:
        """The last outcome of a proposal: its seq, and its age in seconds."""
        rows = self.reader.rows("last_outcome")
        if not rows:
            return None
        return rows[0]["seq"], max(0.0, self._clock() / 1e6 - rows[0]["at"].timestamp())

    def heights(self) -> tuple[int, int]:
        """How many records the journal has, and how many entries the ledger."""
        return self.reader.look(lambda state: (state.seq, state.entries))


def _kind(payload: Act) -> str:
    """The kind of the record that a payload makes."""
    names = {Registration: "registration", ConstraintsChange: "constraints", Control: "control"}
    return names.get(type(payload), "activation")


def _append(engine: Engine, payload: Act, at: int, once: Once) -> JournalRecord:
    if isinstance(payload, Registration):
        return engine.register(payload, at, once)
    if isinstance(payload, ConstraintsChange):
        return engine.constrain(payload.constraints, at, payload.operator, payload.reason, once)
    if isinstance(payload, Activation):
        return engine.activate(payload, at, once)
    act = engine.pause if payload.paused else engine.resume
    return act(at, payload.operator, payload.reason, once)


# --- JSON of rows -----------------------------------------------------------------------------------------------------


def _page(items: list[Json], limit: int, cursor: str) -> Json:
    return {"items": items, "next": items[-1][cursor] if len(items) == limit else None}


def _units(minor: int, scale: int) -> int | float:
    """A JSON number; exact below 15 digits."""
    return _number(Decimal(plain(minor, scale)))


def _number(amount: Decimal) -> int | float:
    return int(amount) if amount == amount.to_integral_value() else float(amount)


def _minor(amount: int | str) -> int | Decimal:
    return amount if isinstance(amount, int) else Decimal(amount)


def _moment(at: datetime) -> str:
    return at.replace(tzinfo=None).isoformat() + "Z"


def _violation_json(row: Json, resources: Resources) -> Json:
    violation = Violation(**{**row, "code": Code(row["code"])})
    return {**violation_json(violation, resources), "words": words(violation, resources)}


def _entry_json(row: Json) -> Json:
    found = {key: row[key] for key in ("id", "actor_from", "actor_to", "resource", "metadata", "seq", "epoch", "kind")}
    found["proposal_id"] = None if row["proposal_id"] is None else str(row["proposal_id"])
    return {**found, "amount": _number(row["amount"]), "executed_at": _moment(row["executed_at"])}


def _close_json(record: JournalRecord) -> Json:
    close = record.payload
    assert isinstance(close, Close), "only closes close"
    found = {"kind": record.kind, "epoch": record.epoch, "at": timestamp(record.at), "entries": close.entries}
    return {**found, "seq": record.seq, "digest": record.digest.hex()}
