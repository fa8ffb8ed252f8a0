"""What the app does for a caller, without HTTP: rounds, proposals, people's acts, meters, epochs, what is handed on.

Each writing method is one command of the one writer, and answers once that is durable. Asked again, it answers what was
recorded. Amounts in what it returns are in units, times are text.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from gridgov import beside, standing, stored
from gridgov.amounts import to_json
from gridgov.auth import PLANNER, SHADOW, Caller, check_name
from gridgov.beside import Handed, Interaction, Shadow
from gridgov.cassette import SYNTHETIC
from gridgov.decide import decide, faulted, overridden, reversed_, settled
from gridgov.engine import METERED, Engine, Metered, again
from gridgov.errors import BadInput, Conflict, GridgovError, Misplaced, Unreachable
from gridgov.grid_tables import input_of, judged_aside
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
    by_request,
    canonical,
    encode,
)
from gridgov.model import (
    BOUNDARY,
    BOUNDARY_TYPE,
    Actor,
    LedgerEntry,
    Malformed,
    Outcome,
    Proposal,
    Round,
    Seen,
    Unavailable,
    uuid5,
)
from gridgov.outcome import Outcomes, Reply, touched
from gridgov.pages import Balances, NotThere, Pages, known_pairs, moved_by, page, ready, reply_of
from gridgov.postgres import Pool, Reader, Writer
from gridgov.prompt import Prompt, Request, exact_json, load, render
from gridgov.propose import Answer, Context
from gridgov.reply import about, answer_of, parse_body, printable
from gridgov.rows import Pair
from gridgov.shown import digest_of, seen_of, state_shown
from gridgov.state import Hold, State, copied
from gridgov.wire import (
    Json,
    constraints_from_json,
    constraints_json,
    decision_json,
    declared,
    known,
    timestamp,
    violation_json,
    world_state_json,
)
from gridgov.words import words

ACTIVE = "active"
"""The role of what proposes; the other one, `shadow`, is only judged."""

PROMPT = "propose_transfer"
MODEL = "gemini-3.8-flash"
"""What is asked, and whom, where no activation says so."""

FAILURES = ("quota", "transport", "auth", "config")
"""The ways in which a proposer is unavailable."""

ROUNDS = 16
"""Most rounds of one proposer in an epoch."""

EPOCHS_KNOWN = 1_000
"""The rounds of so many epochs, back and ahead, are recognised by their ids."""

HISTORY = 3
HISTORY_EPOCHS = 64
"""How many of its last decisions a proposer is shown, and how many epochs back they are looked for."""

HANDED_OUT = 1_000
"""So many requests are remembered, to be kept beside their replies."""

RENDERED = 32
"""So many contexts are kept ready."""

SHOWN = 16
"""So many states are kept as they were shown to shadows; older ones are found again in the database."""

DEADLINE_S = 30.0

Act = Registration | ConstraintsChange | Control | Activation
T = TypeVar("T")


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
    latency_ms: int | None = None


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
        who = f"{len(caller.name)}/{caller.name}"  # so that no other name and key come to the same text
        return Once(uuid5(f"request/{who}/{self.key}"), hashlib.sha256(text.encode()).hexdigest())


class _Told(NamedTuple):
    """What became of a command. Without balances it was recorded before; `differs` says that it was other input.

    `held` is the decision that was held, and `held_in` its epoch, where a hold was settled.
    """

    record: JournalRecord
    held: Decision | None = None
    balances: Balances | None = None
    differs: str = ""
    held_in: int | None = None


class _NotHeld(GridgovError):
    """Nothing waits under this id."""


class _OfShadow(GridgovError):
    """This is the round of a shadow: the writer has nothing to do with it."""

    def __init__(self, round_: Round) -> None:
        super().__init__()
        self.round = round_


# --- small questions --------------------------------------------------------------------------------------------------


def _watch(
    engine: Engine, id_: str, pairs: Iterable[Pair], act: Callable[[], object], hold: Hold | None = None
) -> _Told:
    """Acts under an id, and tells what is recorded under it, with the balances before and after."""
    state = ready(engine.state)
    before = {pair: state.balance(*pair) for pair in known_pairs(state, pairs)}
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
    balances = {pair: (amount, state.balance(*pair)) for pair, amount in before.items()}
    return (
        _Told(recorded, balances=balances) if hold is None else _Told(recorded, hold.decision, balances, "", hold.epoch)
    )


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

    def find(self, id_: str, proposer: str, epoch: int, ahead: int = 0) -> Round | None:
        """The proposer's round with this id: of the last epochs, the open one, and so many ahead of it."""
        with self._lock:
            ids = self._ids.setdefault(proposer, {})
            first = max(1, epoch - EPOCHS_KNOWN)
            until = epoch + ahead + 1
            for e in range(max(first, self._next.get(proposer, first)), until):
                for n in range(1, ROUNDS + 1):
                    round_ = Round(e, proposer, n)
                    ids[round_.proposal_id] = round_
            self._next[proposer] = max(until, self._next.get(proposer, 0))
            found = ids.get(id_)
            if len(ids) > (3 * EPOCHS_KNOWN + ahead) * ROUNDS:
                self._ids[proposer] = {i: r for i, r in ids.items() if r.epoch >= first}
        return found if found is not None and first <= found.epoch < until else None


class _Handed(NamedTuple):
    """A request as it was handed out: its body, and what there is to say about it."""

    body: bytes
    about: Json


class _Asking(NamedTuple):
    """What a rendered context depends on: `digest` is of the prompt in force (empty: any), `aside` counts shadows."""

    seq: int
    prompt: str
    model: str
    digest: str
    proposer: str
    mandate: frozenset[str] | None
    extra: bool
    aside: int


def _template(asked: _Asking) -> Prompt:
    """The prompt to ask with. Raises NotThere, or Conflict where it is not the one in force."""
    try:
        return _load(asked.prompt, asked.digest)
    except Conflict:
        raise
    except BadInput as error:
        raise NotThere(str(error)) from None


def _load(name: str, digest: str) -> Prompt:
    """The prompt on disk. Raises BadInput where there is none, Conflict where its digest is not the one in force."""
    template = load(name)
    if digest and template.digest != digest:
        raise Conflict(f"the prompt {name} in force has the digest {digest[:12]}, and the file has "
                       f"{template.digest[:12]}; put the file back, or activate it as it is")  # fmt: skip
    return template


def _aside(shadow: Shadow) -> JournalRecord:
    """A shadow's decision in the form of a record that no journal has."""
    return JournalRecord(0, shadow.epoch, "proposal", shadow.at, shadow.decision, "", b"")


def _round_of(record: JournalRecord) -> Round | None:
    """The round that a decision is of, of its epoch or of one that had closed; None where a client gave the id."""
    decision = record.payload
    assert isinstance(decision, Decision), "asked for decisions only"
    epochs = range(record.epoch, max(0, record.epoch - EPOCHS_KNOWN), -1) if decision.n else ()
    rounds = (Round(epoch, decision.proposer, decision.n) for epoch in epochs)
    return next((round_ for round_ in rounds if round_.proposal_id == decision.proposal_id), None)


def _handed(request: Request, round_: Round, shown: str) -> _Handed:
    """A request as it is handed out for a round in which this was shown."""
    about: Json = {"components": request.components, "model_asked": request.model, "parameters": request.parameters}
    about |= {"prompt": request.prompt, "round": round_._asdict(), "sample": request.sample, "seen": shown}
    return _Handed(exact_json(request.body).encode(), about)


def _round_asked(about: Json, proposal_id: str) -> Json:
    """The round that a request was rendered for: a shadow asked with the same prompt and model has the same request."""
    round_ = Round(**about["round"])
    base = round_.proposer.removesuffix(SHADOW)
    either = (Round(round_.epoch, name, round_.n) for name in (base, base + SHADOW))
    return next((other for other in either if other.proposal_id == proposal_id), round_)._asdict()


class Service(Pages):
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
        super().__init__(reader, clock, public_url)
        self.writer, self._acks = writer, acks
        self._deadline_s, self._on_outcome = deadline_s, on_outcome
        self._rounds = Rounds()
        self._handed: OrderedDict[str, _Handed] = OrderedDict()
        self._contexts: OrderedDict[tuple[Any, ...], Json] = OrderedDict()
        self._shown: OrderedDict[str, State] = OrderedDict()
        self._rendering = threading.Lock()

    # --- how things are done ------------------------------------------------------------------------------------------

    def _run(self, command: Callable[[Engine], T], id_: str | None = None, kept: Interaction | None = None) -> T:
        """What a command comes to, once that is durable.

        In a rush, the writer takes the id that it is told for new, and finds out when it would be recorded twice. What
        a command refuses is not recorded, so one that may do so because it came before must be told none.
        """
        return self.writer.enqueue(command, id_, kept).result(self._deadline_s)

    def _answer(self, told: _Told, differs: Sequence[str] = (), reply: Reply | None = None) -> Json:
        """The outcome that a command came to, of this reply. Raises Recorded where it was other input."""
        payload = told.record.payload
        if told.differs:
            raise Recorded(told.differs, self._recorded(told.record), differs)
        if told.balances is None:
            return self._recorded(told.record)
        assert isinstance(payload, Outcomes), "asked for only where there is an outcome"
        self._on_outcome(payload.outcome)
        return self._told(told.record, told.held, told.balances, told.held_in, reply)

    def _recorded(self, record: JournalRecord) -> Json:
        """A record as it was answered first."""
        if isinstance(record.payload, Outcomes):
            return self._later([record])[0]
        return self._act_json(record)

    def _would(self, state: State, kind: str, payload: Outcomes, held: Decision | None = None) -> _Told:
        """What a dry run shows."""
        by = moved_by(payload, held)
        before = {pair: state.balance(*pair) for pair in known_pairs(state, touched(payload, held))}
        balances = {pair: (amount, amount + by.get(pair, 0)) for pair, amount in before.items()}
        record = JournalRecord(0, state.epoch, kind, max(self._clock(), state.at), payload, "", b"")
        return _Told(record, held, balances)

    def _dry(self, question: Callable[[State], _Told]) -> Json:
        told = self._look(question)
        return self._told(told.record, told.held, told.balances or {}, dry_run=True)

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
            if round_ is not None and round_.proposer.endswith(SHADOW):
                raise _OfShadow(round_)
            proposer, n = (caller.name, 0) if round_ is None else (round_.proposer, round_.n)
            if not isinstance(given, Answer):
                return faulted(id_, proposer, n, given)
            had = seen
            if round_ is not None:  # whatever else was looked at since, its answer is about its own epoch
                looked = Seen(round_.epoch, state.constraints_seq, state.entries) if had is None else had
                had = looked._replace(epoch=round_.epoch)
            return Proposal(id_, proposer, n, given.transfers, given.reasoning, had)

        def command(engine: Engine) -> _Told:
            asked = proposal(ready(engine.state))
            if isinstance(asked, Proposal):
                pairs = [(actor, t.resource) for t in asked.transfers for actor in (t.actor_from, t.actor_to)]
                return _watch(engine, id_, dict.fromkeys(pairs), lambda: engine.propose(asked, at))
            assert not isinstance(given, Answer), "it is a fault"
            return _watch(engine, id_, (), lambda: engine.fail(id_, asked.proposer, asked.n, given, at))

        try:
            if dry_run:
                return self._would_be(id_, proposal, given)
            kept = self._interaction(submission, at)
            told = self._run(command, id_, kept)
        except _OfShadow as of:
            return self._propose_aside(of.round, submission, given, at, dry_run)
        reply = None if kept is None else reply_of(json.loads(kept.about))
        return self._answer(told, _differences(told.record, given) if told.differs else (), reply)

    def _would_be(
        self, id_: str, proposal: Callable[[State], Proposal | Decision], given: Answer | Malformed | Unavailable
    ) -> Json:
        """What a proposal would come to now, or came to under its id before. Raises Recorded as `propose` does."""
        known = self.reader.answered(id_)

        def judge(state: State) -> _Told:
            asked = proposal(state)
            decision = decide(state, asked) if isinstance(asked, Proposal) else asked
            if known is None:
                return self._would(state, "proposal", decision)
            try:
                again(known, decision)
            except Conflict as conflict:
                return _Told(known, differs=str(conflict))
            return _Told(known)

        if known is None:
            return self._dry(judge)
        told = self._look(judge)
        return self._answer(told, _differences(known, given) if told.differs else ())

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
        """The round that an id is of, of those that this key may answer.

        Raises Forbidden for the planner's where the key has a mandate, BadInput for a round of an epoch to come: who
        answered it now would answer in the place of whoever is asked then.
        """

        def find(name: str, ahead: int = 0) -> Round | None:
            return self._rounds.find(id_, name, epoch, ahead) or self._rounds.find(id_, name + SHADOW, epoch, ahead)

        planned = find(PLANNER, EPOCHS_KNOWN)
        if planned is not None and caller.mandate is not None:
            raise Forbidden(
                f"{id_} is a round of {PLANNER}; a key with a mandate has rounds of its own, see /v1/context"
            )
        if planned is not None and planned.epoch > epoch:
            raise BadInput(f"this is a round of epoch {planned.epoch}, and epoch {epoch} is open", ("proposal_id",))
        return planned if planned is not None or caller.mandate is None else find(caller.name)

    def _interaction(self, submission: Submission, at: int) -> Interaction | None:
        """The exchange with a model that led to this, if any, with the request as it was handed out."""
        if submission.reply is None and (submission.failure is None or submission.request_key is None):
            return None
        key, body, failure = submission.request_key or "", submission.reply or b"", submission.failure
        handed = self._handed_out(key)
        said = about(body)
        origin = "synthetic" if (said.model or "").startswith(SYNTHETIC) else "recorded"
        told: Json = {"attempts": 1, "finish_reason": said.finish_reason, "model_answered": said.model}
        told |= {"failure": "" if failure is None else failure.kind, "origin": origin}
        if handed is not None:
            told |= {**handed.about, "round": _round_asked(handed.about, submission.proposal_id)}
        return Interaction(
            submission.proposal_id,
            key,
            at,
            b"" if handed is None else handed.body,
            200 if failure is None else failure.status,
            body,
            canonical(told),
            canonical(dict(said.usage)) if said.usage else None,
            submission.latency_ms,
        )

    def _handed_out(self, key: str) -> _Handed | None:
        """The request with this key as it was handed out, by this app or another one, or None."""
        with self._rendering:
            handed = self._handed.get(key)
        if handed is None and key:
            row = self.reader.pool.ask(lambda c: beside.request(c, key))
            handed = None if row is None else _Handed(row[0], json.loads(row[1]))
        return handed

    # --- proposals of shadows -----------------------------------------------------------------------------------------

    def _propose_aside(
        self, round_: Round, submission: Submission, given: Answer | Malformed | Unavailable, at: int, dry_run: bool
    ) -> Json:
        """Judges what a shadow proposes on the state that it was shown, and keeps that beside the journal.

        Where that state is not found, it is judged on today's, and `state_moved` says so. Raises Recorded where the
        round has an outcome with other input.
        """
        id_, key = round_.proposal_id, submission.request_key or ""
        known = self.reader.pool.ask(lambda c: beside.shadow(c, id_))
        if known is None or dry_run:
            handed = self._handed_out(key)
            told = {} if handed is None else handed.about
            shown = submission.digest or str(told.get("seen", ""))
            found = self._state_shown(round_, shown)
            state = self._look(copied) if found is None else found
            decision = judged_aside(state, round_, given, shown if found is None else None)
            shadow = Shadow(
                id_, round_.epoch, round_.proposer, round_.n, state.seq, max(at, state.at), encode(decision),
                told.get("prompt", ""), told.get("model_asked", ""), key, shown, None,
            )  # fmt: skip
            if dry_run:
                return {**self._shadow_json(shadow), "dry_run": True}
            kept = self._interaction(submission, shadow.at)
            known = self._acks.ask(lambda c: beside.add_shadow(c, shadow, kept))
        if known.decision.input != input_of(given):
            raise Recorded(f"proposal {id_} was judged before with other input ({known.decision.outcome})",
                           self._shadow_json(known), _differences(_aside(known), given))  # fmt: skip
        return self._shadow_json(known)

    def _state_shown(self, round_: Round, shown: str) -> State | None:
        """The state that a shadow was shown in its round; None where it cannot be had exactly."""
        if not shown or seen_of(shown).epoch != round_.epoch:
            return None
        with self._rendering:
            state = self._shown.get(shown)
        return self.reader.pool.ask(lambda c: state_shown(c, shown)) if state is None else state

    def _shadow_json(self, shadow: Shadow) -> Json:
        """What would have become of it, with the balances as they would have been; the same whenever it is asked."""
        record = _aside(shadow)
        decision = shadow.decision
        pairs = self._look(lambda state: known_pairs(state, touched(decision)))
        before = self.reader.pool.ask(lambda c: standing.balances_after(c, [(shadow.seq, pairs)]))[0]
        by = moved_by(decision, None)
        balances = {pair: (before.get(pair, 0), before.get(pair, 0) + by.get(pair, 0)) for pair in pairs}
        found = self._told(record, None, balances, dry_run=True)
        del found["dry_run"]
        asked = {"prompt": shadow.prompt, "model": shadow.model, "world_state_digest": shadow.seen}
        return {**found, "shadow": True, **{key: said for key, said in asked.items() if said}}

    def _shadow_view(self, shadow: Shadow) -> Json:
        """The same with what it proposed, and how it was asked."""
        said = self._said(shadow.decision)
        return {**self._shadow_json(shadow), "proposal": said, **self._exchange(shadow.proposal_id)}

    def shadows(self, after: int, limit: int, **filters: Any) -> Json:
        """A page of what shadows proposed, in order of id, with what would have become of it."""
        resources = self.resources
        rows = self.reader.pool.ask(lambda c: beside.shadows_page(c, after=after, limit=limit, **filters))
        items = []
        for shadow in rows:
            decision = shadow.decision
            found: Json = {"id": shadow.id, "shadow": True, "epoch": shadow.epoch, "at": timestamp(shadow.at)}
            found |= {**decision_json(decision, resources), "seq": None, "digest": None}
            found["violations"] = [{**violation_json(v, resources), "words": words(v, resources)}
                                   for v in decision.violations]  # fmt: skip
            del found["entries"]
            items.append({**found, "prompt": shadow.prompt, "model": shadow.model, "world_state_digest": shadow.seen})
        return page(items, limit, "id")

    # --- a proposal, looked at ----------------------------------------------------------------------------------------

    def proposal(self, proposal_id: str) -> Json:
        """A proposal and what became of it in the end; a shadow's, what would have. Raises NotThere."""
        ask = self.reader.pool.ask
        record = self.reader.answered(proposal_id)
        if record is None or not isinstance(record.payload, Decision):
            own = ask(lambda c: beside.shadow(c, proposal_id))
            if own is None:
                raise NotThere(f"there is no proposal {proposal_id}")
            return self._shadow_view(own)
        settlement = ask(lambda c: stored.settlement_of(c, proposal_id))
        found = self._later([record if settlement is None else settlement])[0]
        decided = {"seq": record.seq, "outcome": record.payload.outcome.value}
        found |= {"proposal": self._said(record.payload), "decided": decided, **self._exchange(proposal_id)}
        round_ = _round_of(record)
        if round_ is not None:
            id_ = round_._replace(proposer=round_.proposer + SHADOW).proposal_id
            shadow = ask(lambda c: beside.shadow(c, id_))
            found |= {} if shadow is None else {"shadow": self._shadow_view(shadow)}
        return found

    def _said(self, decision: Decision) -> Json:
        """What was proposed, by whom."""
        told = decision_json(decision, self.resources)
        return {key: told[key] for key in ("proposer", "n", "transfers", "granted", "reasoning") if key in told}

    def _exchange(self, proposal_id: str) -> Json:
        """How a model was asked for this proposal, where that was kept."""
        rows = self.reader.rows("interactions_of", proposal_id=proposal_id)
        if not rows:
            return {}
        about_ = json.loads(rows[0]["about"])
        found = {key: about_.get(key) for key in ("prompt", "model_asked", "model_answered")}
        found["prompt_digest"] = about_.get("components", {}).get("prompt")
        found["usage"] = json.loads(rows[0]["usage"] or "{}")
        late = rows[0]["latency_ms"]
        return {"interaction": found if late is None else {**found, "latency_ms": late}}

    # --- context ------------------------------------------------------------------------------------------------------

    def context(self, caller: Caller, prompt: str | None = None, extra: bool = False, role: str = ACTIVE) -> Json:
        """The open round of this key, and the request that puts it to a model. Raises NotThere for an unknown prompt.

        It repeats until the round has an outcome; `extra` takes the first round of this epoch without one. With the
        role `shadow` it is that of the shadow beside this key's proposer, on the same state; raises NotThere where none
        is active. Raises Conflict where the prompt in force is not on disk as it was activated.
        """
        proposer = (PLANNER if caller.mandate is None else caller.name) + (SHADOW if role != ACTIVE else "")
        for _ in range(100):  # until nothing changes between the questions
            seq, epoch, active = self._look(lambda state: (state.seq, state.epoch, state.active.get(role)))
            if active is None and role != ACTIVE:
                raise NotThere("no shadow is active; put a prompt and a model in force with the role shadow")
            asked = _Asking(
                seq,
                prompt or (active.prompt if active is not None else PROMPT),
                active.model if active is not None else MODEL,
                active.digest if active is not None and prompt in (None, active.prompt) else "",
                proposer,
                caller.mandate,
                extra,
                0 if role == ACTIVE else self.reader.pool.ask(beside.last_shadow),
            )
            with self._rendering:
                found = self._contexts.get(asked) or self._rendered(asked, epoch)
                if found is not None:
                    self._contexts[asked] = found
                    while len(self._contexts) > RENDERED:
                        self._contexts.popitem(last=False)
                    return found
        raise Unreachable("the grid changes too fast to be shown; ask again")

    def _rendered(self, asked: _Asking, epoch: int) -> Json | None:
        """A context as of a seq; None where that is not the head any more."""
        template = _template(asked)
        rounds = {Round(epoch, asked.proposer, n).proposal_id: n for n in range(1, ROUNDS + 1)}
        past = self._decided(asked.proposer, epoch, list(rounds))
        taken = {rounds[d.proposal_id] for d, _ in past if d.proposal_id in rounds}
        mine = [(d, told) for d, told in past if d.proposer == asked.proposer]  # another may have used an id
        decided = {rounds[d.proposal_id]: told for d, told in mine if d.proposal_id in rounds}
        numbers = range(1, ROUNDS + 1)
        free = next((n for n in numbers if n not in taken), ROUNDS)
        first = next((n for n in numbers if n in decided or n not in taken), ROUNDS)
        round_ = Round(epoch, asked.proposer, free if asked.extra else first)
        history = tuple(decision for decision, _ in mine[:HISTORY])[::-1]
        aside = asked.proposer.endswith(SHADOW)

        def question(state: State) -> tuple[Request, Json, Seen, bool, State | None] | None:
            if state.seq != asked.seq:
                return None
            context = Context(round_, state, history=history, mandate=asked.mandate)
            request = render(template, context, model=asked.model)
            world = world_state_json(context.world_state)
            return request, world, state.seen, state.paused, copied(state) if aside else None

        shown = self._look(question)
        if shown is None:
            return None
        request, world, seen, paused, state = shown
        digest = digest_of(seen, world)
        self._hand_out(request, round_, digest, state)
        answer: Json = {
            "round": round_._asdict(),
            "proposal_id": round_.proposal_id,
            "paused": paused,
            "world_state": world,
            "world_state_digest": digest,
            "request": {"model": request.model, "path": request.path, "body": request.body},
            "request_key": request.request_key,
            "prompt": {"name": template.name, "version": template.version, "digest": template.digest},
        }
        if aside:
            answer["shadow"] = True
        if round_.n in decided:
            answer["decided"] = decided[round_.n]()
        return answer

    def _decided(self, proposer: str, epoch: int, ids: list[str]) -> list[tuple[Decision, Callable[[], Json]]]:
        """The decisions of these rounds of an epoch and of the last ones before, newest first, and how each is told."""
        earlier = range(max(1, epoch - HISTORY_EPOCHS), epoch)
        past = [Round(e, proposer, n).proposal_id for e in earlier for n in range(1, ROUNDS + 1)]
        most, ask = ROUNDS + HISTORY, self.reader.pool.ask
        if proposer.endswith(SHADOW):
            shadows = ask(lambda c: beside.shadows_of(c, [*ids, *past], most))
            return [(shadow.decision, partial(self._shadow_json, shadow)) for shadow in shadows]
        records = ask(lambda c: stored.decided(c, [*ids, *past], most))
        return [(r.payload, partial(self._recorded, r)) for r in records if isinstance(r.payload, Decision)]

    def _hand_out(self, request: Request, round_: Round, shown: str, state: State | None) -> None:
        """Keeps a request, durably and once, so that what comes of it says what it was; and what a shadow was shown."""
        key = request.request_key
        if key not in self._handed:
            body, about_ = handed = _handed(request, round_, shown)
            row = Handed(key, self._clock(), body, canonical(about_))
            self._acks.ask(lambda c: beside.keep_request(c, row))
            self._handed[key] = handed
        if state is not None:
            self._shown[shown] = state
        for kept, most in ((self._handed, HANDED_OUT), (self._shown, SHOWN)):
            while len(kept) > most:
                kept.popitem(last=False)

    def warnings(self) -> list[str]:
        """What keeps the prompts in force from being used, a sentence for each."""
        found = []
        for active in self.reader.look(lambda state: list(state.active.values())):
            try:
                _load(active.prompt, active.digest)
            except GridgovError as error:
                found.append(f"{active.role}: {error}")
        return found

    # --- what people do: with an outcome ------------------------------------------------------------------------------

    def settle(self, caller: Caller, asked: Asked, proposal_id: str, decision: str) -> Json:
        """Approves or rejects what is held, once. Raises NotThere, or Recorded where it was settled already."""
        operator, at, once = caller.name, self._clock(), asked.once(caller)

        def command(engine: Engine) -> _Told:
            hold = ready(engine.state).holds.get(proposal_id)
            if hold is None and engine.ledger.answered(by_request(once.request)) is None:
                raise _NotHeld
            pairs = () if hold is None else touched(hold.decision)
            act = partial(engine.settle, proposal_id, decision, at, operator, asked.reason, once=once)
            return _watch(engine, by_request(once.request), pairs, act, hold)

        def judge(state: State) -> _Told:
            if proposal_id not in state.holds:
                raise _NotHeld
            held = state.holds[proposal_id].decision
            return self._would(state, "settlement", settled(state, proposal_id, decision, operator, asked.reason), held)

        try:
            if asked.dry_run:
                return self._dry(judge)
            reply = self._replies([proposal_id]).get(proposal_id)  # first: what is decided is answered without a look
            return self._answer(self._run(command), reply=reply)
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
            return _watch(engine, by_request(once.request), pairs, act)

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
            return _watch(engine, by_request(once.request), pairs, act)

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
            found = engine.ledger.answered(by_request(once.request))
            if found is None:
                return _append(engine, prepare(ready(engine.state)), at, once), True
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

    def flows(self, caller: Caller, reading_id: str, epoch: int, readings: Sequence[Json]) -> Json:
        """Records a set of meter readings, once; late ones go into the open epoch, marked.

        Raises Forbidden where one is of an actor that the key's mandate does not cover.
        """
        for reading in readings:
            if caller.mandate is not None and reading["actor"] not in caller.mandate:
                raise Forbidden(f"the mandate of this key does not cover {reading['actor']}")
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
            ready(engine.state)
            try:
                return engine.meter("meter", metered, at, epoch=epoch, once=once), True
            except Conflict:
                ids = [by_request(uuid5(f"{once.request}/{kind}")) for kind in METERED]
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
                amounts = {"requested": to_json(requested, scale), "applied": to_json(applied, scale)}
                shown.append({"actor": actor, "resource": resource, "kind": flow.kind, **amounts, "entry": entry})
        last = records[-1]
        found = {"reading_id": reading_id, "epoch": last.epoch, "late": late, "readings": shown}
        return {**found, "seq": last.seq, "digest": last.digest.hex()}

    def close(self, epoch: int) -> Json:
        """Closes the open epoch if it is this one, and what has to expire with it; once."""
        at = self._clock()

        def command(engine: Engine) -> tuple[JournalRecord, list[Settlement]] | None:
            state = ready(engine.state)
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
        closed = self.reader.pool.ask(lambda c: stored.close_of(c, epoch))
        if closed is None:
            raise NotThere(f"there was no epoch {epoch}")
        return {**_close_json(closed), "already": True, "expired": []}

    # --- reads --------------------------------------------------------------------------------------------------------

    # --- what is handed on --------------------------------------------------------------------------------------------

    def acknowledge(self, seq: int, reference: str) -> Json:
        """Notes that an outcome was handed on, as what; the second time changes nothing. Raises NotThere."""
        at = self._clock()
        try:
            self._acks.ask(lambda connection: beside.acknowledge(connection, seq, reference, at))
        except Misplaced:
            raise
        except BadInput as error:
            raise NotThere(str(error)) from None
        return {"seq": seq, "acknowledged": True}


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


def _close_json(record: JournalRecord) -> Json:
    close = record.payload
    assert isinstance(close, Close), "only closes close"
    found = {"kind": record.kind, "epoch": record.epoch, "at": timestamp(record.at), "entries": close.entries}
    return {**found, "seq": record.seq, "digest": record.digest.hex()}
