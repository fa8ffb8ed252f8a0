"""What the app shows of a grid as JSON: states, pages, outcomes; read as it is committed, and nothing written.

Amounts in what is returned are in units, times are text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

from gridgov import daily, standing, stored
from gridgov.amounts import json_number
from gridgov.errors import BadInput, GridgovError, Misplaced
from gridgov.journal import Decision, JournalRecord, Settlement, decode
from gridgov.model import BOUNDARY, Code, Outcome, Resource, Transfer, Violation, uuid5
from gridgov.outcome import Outcomes, Reply, outcome_json, touched, transfers_of
from gridgov.reader import Ask, Reading
from gridgov.rows import Pair, array
from gridgov.state import State
from gridgov.wire import Json, constraints_json, transfer_json, violation_json, world_state_json
from gridgov.words import words

PAGE_BYTES = 4_000_000
CHUNK = 100
"""A page ends after so many bytes; rows are fetched so many at once."""

LOOKED_AT = {"proposals": 20_000, "ledger": 200_000, "journal": 50_000}
"""A page that looks back ends after so many rows, however few of them are what is looked for."""

DIGESTED = 1_000
"""So many outcomes are handed on with one digest; those beyond come with the next."""

LAG_MAX = 10_000
"""The outbox is counted no further."""

Resources = Mapping[str, Resource]
Balances = dict[Pair, tuple[int, int]]
T = TypeVar("T")


class NotReady(GridgovError):
    """The grid has no genesis; run `gridgov up` or `gridgov migrate --scenario FILE`."""

    def __init__(self) -> None:
        super().__init__("the grid has no genesis; run `gridgov up` or `gridgov migrate --scenario FILE`")


class NotThere(GridgovError):
    """What was asked for does not exist."""


def ready(state: State) -> State:
    """The state of a grid that has a genesis. Raises NotReady."""
    if not state.seq:
        raise NotReady
    return state


def known_pairs(state: State, pairs: Iterable[Pair]) -> list[Pair]:
    """Those of actors and resources that there are."""
    return [(actor, name) for actor, name in pairs if actor in state.actors and name in state.resources]


def moved_by(payload: Outcomes, held: Decision | None) -> dict[Pair, int]:
    """By how much an outcome changed each balance."""
    net: dict[Pair, int] = {}
    if payload.outcome is Outcome.EXECUTED:
        for giver, taker, resource, amount in transfers_of(payload, held):
            assert type(amount) is int, "what was executed was exact"
            net[giver, resource] = net.get((giver, resource), 0) - amount
            net[taker, resource] = net.get((taker, resource), 0) + amount
    return net


def reply_of(about: Json) -> Reply | None:
    """Whose reply an exchange that was kept came to; None where nobody replied, or without a name."""
    model = about.get("model_answered")
    return None if not model else Reply(model, about.get("origin", "recorded"))


class Pages:
    """What can be asked of a grid without changing it."""

    def __init__(self, reader: Reading, clock: Callable[[], int], public_url: str) -> None:
        """`clock` gives microseconds; `public_url` is where the links of outcomes lead."""
        self.reader, self._clock, self._public_url = reader, clock, public_url
        self._resources: Resources = {}

    def _look(self, question: Callable[[State], T]) -> T:
        """What a question comes to; the state neither leaves it nor changes. Raises NotReady without a genesis."""
        return self.reader.look(lambda state: question(ready(state)))

    @property
    def resources(self) -> Resources:
        """What is shared; it never changes after the genesis."""
        if not self._resources:
            self._resources = self._look(lambda state: dict(state.resources))
        return self._resources

    def now(self) -> int:
        """Microseconds since 1970, by the clock that records are stamped by."""
        return self._clock()

    def _told(
        self, record: JournalRecord, held: Decision | None, balances: Balances, held_in: int | None = None,
        reply: Reply | None = None, dry_run: bool = False,
    ) -> Json:  # fmt: skip
        return outcome_json(
            record,
            decision=held,
            balances=balances,
            resources=self.resources,
            public_url=self._public_url,
            held_in=held_in,
            reply=reply,
            dry_run=dry_run,
        )

    def outcome(self, record: JournalRecord, decided: JournalRecord, balances: Balances) -> Json:
        """An outcome as the API answers it, with the balances (minor units) that somebody looked up.

        `decided` is the record of the proposal, which is the same one where no hold was settled.
        """
        decision = decided.payload
        assert isinstance(decision, Decision), "what a person does by hand has no story"
        reply = self._replies([decision.proposal_id]).get(decision.proposal_id)
        if decided is record:
            return self._told(record, None, balances, reply=reply)
        return self._told(record, decision, balances, decided.epoch, reply)

    def _replies(self, ids: Sequence[str]) -> dict[str, Reply]:
        """Whose replies these proposals came of, where that was kept."""
        rows = self.reader.rows("replies_of", ids=array(ids)) if ids else []
        found = {row["proposal_id"]: reply_of(json.loads(row["about"])) for row in rows}
        return {id_: reply for id_, reply in found.items() if reply is not None}

    def _later(self, records: Sequence[JournalRecord]) -> list[Json]:
        """Outcomes in order of seq, with the balances as they were then."""
        ask = self.reader.pool.ask
        ids = [record.payload.proposal_id for record in records if isinstance(record.payload, Settlement)]
        found = ask(lambda c: stored.decided(c, ids, len(ids))) if ids else []
        held = {d.payload.proposal_id: (d.payload, d.epoch) for d in found if isinstance(d.payload, Decision)}
        of = [r.payload.proposal_id if isinstance(r.payload, Decision | Settlement) else "" for r in records]
        replies = self._replies([id_ for id_ in of if id_])
        deciding = [
            held.get(id_, (None, None)) if isinstance(record.payload, Settlement) else (None, None)
            for id_, record in zip(of, records, strict=True)
        ]
        named = [touched(record.payload, own) for record, (own, _) in zip(records, deciding, strict=True)]
        pairs = self._look(lambda state: [known_pairs(state, own) for own in named])
        asked = [(record.seq, own) for record, own in zip(records, pairs, strict=True)]
        afters = ask(lambda c: standing.balances_after(c, asked))
        told = []
        for id_, record, (own, held_in), shown, after in zip(of, records, deciding, pairs, afters, strict=True):
            assert isinstance(record.payload, Outcomes), "the caller gives outcomes"
            by = moved_by(record.payload, own)
            balances = {pair: (after.get(pair, 0) - by.get(pair, 0), after.get(pair, 0)) for pair in shown}
            told.append(self._told(record, own, balances, held_in, replies.get(id_)))
        return told

    # --- pages --------------------------------------------------------------------------------------------------------

    def world_state(self, epoch: int | None = None) -> Json:
        """The WorldState of now, or at the close of an epoch. Raises NotThere where that has not closed."""
        _ = self.resources  # there is a genesis
        try:
            return world_state_json(self.reader.world_state(epoch))
        except Misplaced:
            raise
        except BadInput as error:
            raise NotThere(str(error)) from None

    def _paged(
        self, name: str, after: int, limit: int, cursor: str, shown: Callable[[Json], Json], **filters: Any
    ) -> Json:
        """A page of a query, in order of its cursor: so many rows, or fewer where they are long."""
        items: list[Json] = []
        size, some = 0, True
        while some and len(items) < limit and size < PAGE_BYTES:
            most = min(CHUNK, limit - len(items))
            rows = self.reader.rows(name, after=after, limit=most, **filters)
            found = [shown(row) for row in rows]
            items += found
            size += sum(len(json.dumps(item, default=str)) for item in found)
            some = len(rows) == most
            after = found[-1][cursor] if found else after
        return {"items": items, "next": after if some and items else None}

    def proposals(self, after: int, limit: int, **filters: Any) -> Json:
        """A page of proposals with their final outcomes, in order of seq."""
        return self._paged("proposals_page", after, limit, "seq", self._proposal_json, **filters)

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

    def back(self, what: str, before: int, limit: int, since: str | None, until: str | None, **filters: Any) -> Json:
        """A page of proposals, ledger or journal, newest first, of those before a cursor (0: the newest) and in a time.

        It ends where its rows are long, or many and other than what is looked for; `looked_back_to` says how far it
        looked, and `next` goes on from there. Complexity: O(`LOOKED_AT`), at any size.
        """
        shown = {"proposals": self._proposal_json, "ledger": _entry_json, "journal": _journal_json}[what]
        cursor, epoch = "id" if what == "ledger" else "seq", filters.get("epoch")
        low, high = self._between(what, since, until, epoch)
        upper = high if not before else min(before - 1, high)
        lowest = max(low, upper - LOOKED_AT[what])
        items: list[Json] = []
        size, at = 0, upper
        while at > lowest and len(items) < limit and size < PAGE_BYTES:
            most = min(CHUNK, limit - len(items))
            rows = self.reader.rows(f"{what}_back", before=at + 1, after=lowest, limit=most, **filters)
            found = [shown(row) for row in rows]
            items += found
            size += sum(len(json.dumps(item, default=str)) for item in found)
            at = found[-1][cursor] - 1 if len(rows) == most else lowest
        return {"items": items, "next": at + 1 if at > low else None, "looked_back_to": at + 1}

    def _between(self, what: str, since: str | None, until: str | None, epoch: int | None) -> tuple[int, int]:
        """The cursors between which a time and an epoch lie: above the first, up to the second."""
        rows = self.reader.rows
        low, high = 0, self.heights()[0]
        if since is not None:
            low = rows("record_before", at=since)[0]["seq"]
        if until is not None:
            high = min(high, rows("record_before", at=until)[0]["seq"])
        if epoch is not None:
            found = rows("epoch_between", epoch=epoch)[0]
            low, high = max(low, found["low"]), min(high, found["high"])
        if what == "ledger":
            low, high = (rows("entry_before", seq=seq)[0]["id"] for seq in (low, high))
        return low, high

    def ledger(self, after: int, limit: int, actor: str | None = None, **filters: Any) -> Json:
        """A page of ledger entries, in order of id."""
        own = None if actor is None else uuid5(actor)
        rows = self.reader.rows("ledger_page", after=after, limit=limit, actor=own, **filters)
        return page([_entry_json(row) for row in rows], limit, "id")

    def entry(self, id_: int) -> Json:
        """One ledger entry. Raises NotThere."""
        found = self.ledger(id_ - 1, 1, resource=None, kind=None, epoch=None)["items"]
        if not found or found[0]["id"] != id_:
            raise NotThere(f"there is no ledger entry {id_}")
        back = self._look(lambda state: state.reversed.get(id_))
        return found[0] if back is None else {**found[0], "reversed_by": back}

    def journal(self, after: int, limit: int, kind: str | None = None) -> Json:
        """A page of journal records as they are chained; amounts in them are minor units."""
        return self._paged("journal_page", after, limit, "seq", _journal_json, kind=kind)

    def requested(self, request: str) -> Json:
        """The journal record that answers a request that counts once. Raises NotThere."""
        rows = self.reader.rows("by_request", request=request)
        if not rows:
            raise NotThere(f"there is no record of a request {request}")
        return _journal_json(rows[0])

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

    # --- what is to be handed on --------------------------------------------------------------------------------------

    def outbox(self, after: int, limit: int) -> Json:
        """A page of outcomes that were not acknowledged yet, in order of seq."""
        _ = self.resources  # there is a genesis
        rows = self.reader.rows("outbox_page", after=after, limit=limit)
        return page(self._later([decode(row["body"], row["digest"]) for row in rows]) if rows else [], limit, "seq")

    def digests(self, after: str, limit: int) -> Json:
        """A page of the digests of days with outcomes that were not acknowledged yet, oldest first."""
        _ = self.resources  # there is a genesis
        rows = self.reader.rows("outbox_days", after=_day(after or "0001-01-01")[0], limit=limit)
        return page([self.digest(row["day"]) for row in rows], limit, "day")

    def digest(self, day: str) -> Json:
        """What came of everything on one day (UTC, such as 2026-11-23), and what of it was not acknowledged yet.

        Raises NotThere where the day had no outcome, BadInput where it is none.
        """
        ends = _day(day)

        def question(ask: Ask) -> tuple[Json, int, list[Json], list[Json]]:
            low, high = (ask("record_before", at=end)[0]["seq"] for end in ends)
            counts = {row["outcome"]: row["count"] for row in ask("outcomes_counted", low=low, high=high)}
            waiting = ask("outbox_between", low=low, high=high, limit=DIGESTED)
            synthetic = ask("synthetic_between", low=low, high=high)[0]["count"]
            return counts, synthetic, ask("outcomes_between", low=low, high=high, limit=daily.MOST), waiting

        counts, synthetic, rows, waiting = self.reader.at_one_moment(question)
        if not counts:
            raise NotThere(f"nothing was decided on {day}")
        shown = self._later([decode(row["body"], row["digest"]) for row in rows])
        seqs = [row["seq"] for row in waiting]
        return daily.digest_json(day, counts, shown, seqs, self._public_url, synthetic)

    # --- how it is ----------------------------------------------------------------------------------------------------

    def lag(self) -> int:
        """How many outcomes wait to be handed on, counted up to `LAG_MAX`."""
        return int(self.reader.rows("outbox_lag", most=LAG_MAX)[0]["count"])

    def writable(self) -> bool:
        """Whether the database takes what the app writes."""
        return bool(self.reader.rows("writable")[0]["writable"])

    def last_outcome(self) -> tuple[int, float] | None:
        """The last outcome of a proposal: its seq, and its age in seconds."""
        rows = self.reader.rows("last_outcome")
        if not rows:
            return None
        return rows[0]["seq"], max(0.0, self._clock() / 1e6 - rows[0]["at"].timestamp())

    def heights(self) -> tuple[int, int]:
        """How many records the journal has, and how many entries the ledger."""
        return self.reader.look(lambda state: (state.seq, state.entries))


def _day(day: str) -> tuple[str, str]:
    """When a day of UTC begins and ends, as text. Raises BadInput where it is none."""
    try:
        begin = datetime.fromisoformat(f"{day}T00:00:00+00:00")
        return begin.isoformat(), (begin + timedelta(days=1)).isoformat()
    except (ValueError, OverflowError):
        raise BadInput(f"{day!r} is no day; expected such as 2026-11-23", ("day",)) from None


def page(items: list[Json], limit: int, cursor: str) -> Json:
    """A page; what comes next is after its last item, where it is full."""
    return {"items": items, "next": items[-1][cursor] if len(items) == limit else None}


def _minor(amount: int | str) -> int | Decimal:
    return amount if isinstance(amount, int) else Decimal(amount)


def _moment(at: datetime) -> str:
    return at.replace(tzinfo=None).isoformat() + "Z"


def _violation_json(row: Json, resources: Resources) -> Json:
    violation = Violation(**{**row, "code": Code(row["code"])})
    return {**violation_json(violation, resources), "words": words(violation, resources)}


def _journal_json(row: Json) -> Json:
    found = {key: row[key] for key in ("seq", "epoch", "kind", "body")}
    payload = json.loads(row["body"])["payload"]
    return {**found, "at": _moment(row["at"]), "payload": payload, "digest": row["digest"].hex()}


def _entry_json(row: Json) -> Json:
    found = {key: row[key] for key in ("id", "actor_from", "actor_to", "resource", "metadata", "seq", "epoch", "kind")}
    found["proposal_id"] = None if row["proposal_id"] is None else str(row["proposal_id"])
    return {**found, "amount": json_number(row["amount"]), "executed_at": _moment(row["executed_at"])}
