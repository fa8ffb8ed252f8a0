"""Runs a scenario: the phases of each epoch, through the engine of production; nothing is decided or exported here."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gridgov.decide import decide, faulted
from gridgov.engine import Engine
from gridgov.errors import ProposerFailed
from gridgov.journal import Decision, Genesis, Registration
from gridgov.ledger import Ledger, MemoryLedger
from gridgov.model import BOUNDARY, BOUNDARY_TYPE, Actor, Kind, Malformed, Proposal, Round, Unavailable
from gridgov.propose import Answer, Context, Proposer
from sim.allocation import Grant, Share, allocate, proportional, served
from sim.draws import draw, shuffled
from sim.scenario import Scenario, Speaker
from sim.world import World

OPERATOR = "scenario"
"""Who settles holds in a simulation."""


@dataclass
class Seat:
    """A proposer at its place in a scenario: for whom it speaks, and what its last proposals came to.

    `shadow`: it is judged, but never applied. `mandate` is whose balances it may move where the journal doesn't say so:
    a shadow leaves no trace there.
    """

    speaker: Speaker
    proposer: Proposer

    def __post_init__(self) -> None:
        speaker = self.speaker
        self.history: deque[Decision] = deque(maxlen=speaker.history)
        self.name = speaker.name
        self.shadow = speaker.role == "shadow"
        self.mandate = frozenset(speaker.mandate) if self.shadow and speaker.mandate is not None else None

    def rounds(self, epoch: int) -> int:
        """How many rounds it has in this epoch."""
        wanted = self.proposer.rounds(epoch)
        return self.speaker.proposals_per_epoch if wanted is None else wanted


@dataclass
class Result:
    """A finished run, still in memory."""

    scenario: Scenario
    world: World
    engine: Engine
    seats: list[Seat]
    shadows: list[tuple[int, Decision]]
    collapsed: int | None

    @property
    def epochs(self) -> int:
        """Epochs that were closed."""
        return self.engine.state.epoch - 1

    @property
    def head_digest(self) -> str:
        """The digest of the last journal record, 64 hex."""
        return self.engine.state.digest.hex()


def genesis_of(scenario: Scenario, world: World | None = None) -> Genesis:
    """The first record of a run: who and what there is, the rules of the first epoch, and the opening balances.

    Nothing of it needs the scenario's profiles: without a world, they are not read.
    """
    actors = (Actor(BOUNDARY, BOUNDARY_TYPE), *(Actor(actor.id, actor.type) for actor in scenario.actors))
    return Genesis(
        scenario.seed,
        scenario.start_at,
        scenario.length,
        actors,
        tuple(scenario.resources),
        scenario.constraints_at(1) if world is None else world.constraints(1),
        scenario.opening,
        scenario.resolved(),
    )


class Runner:
    """Plays a scenario epoch by epoch over one ledger."""

    def __init__(
        self,
        scenario: Scenario,
        world: World,
        seats: Sequence[Seat],
        ledger: Ledger | None = None,
        shadows: Sequence[tuple[int, Decision]] = (),
    ) -> None:
        """Over a ledger that has records, the run goes on after the last epoch that was closed in it.

        `shadows` is what shadows proposed until then, which no record says.
        """
        self.scenario = scenario
        self.world = world
        self.seats = list(seats)
        self.engine = Engine(ledger if ledger is not None else MemoryLedger())
        self.shadows = list(shadows)
        self.collapsed: int | None = None

    def run(self, progress: Callable[[int], None] | None = None) -> Result:
        """Plays all epochs, or until the commons collapses; `progress` is told of every closed epoch.

        Raises ProposerFailed where a proposer fails and its scenario says to stop, BadInput where a flow outgrows
        its resource.
        """
        self._begin()
        for epoch in range(self.engine.state.epoch, self.scenario.epochs + 1):
            self._epoch(epoch)
            if progress is not None:
                progress(epoch)
            if self.collapsed is not None:
                break
        return Result(self.scenario, self.world, self.engine, self.seats, self.shadows, self.collapsed)

    def _begin(self) -> None:
        """The genesis, or what the records that are there say of the past; then what is new in the mandates."""
        scenario, state = self.scenario, self.engine.state
        if state.seq:
            self._recall()
        else:
            self.engine.append(genesis_of(scenario, self.world), scenario.start_at)
        mandates = {seat.name: seat.speaker.mandate for seat in self.seats if not seat.shadow}
        known = {name: state.mandates.get(name) for name in mandates}
        mandates = {name: m for name, m in mandates.items() if (None if m is None else frozenset(m)) != known[name]}
        if mandates:
            at = scenario.start_at + (state.epoch - 1) * scenario.length
            self.engine.register(Registration(mandates=mandates), at)

    def _recall(self) -> None:
        """What the last proposals of each proposer came to."""
        seats = {seat.name: seat for seat in self.seats}
        active = (record.payload for record in self.engine.ledger.records() if isinstance(record.payload, Decision))
        for shadow, past in ((False, active), (True, (decision for _, decision in self.shadows))):
            for decision in past:
                seat = seats.get(decision.proposer)
                if seat is not None and seat.shadow is shadow:
                    seat.history.append(decision)

    def _epoch(self, epoch: int) -> None:
        """The phases in their order; the records carry the epoch's start, its close the end."""
        engine, scenario, world = self.engine, self.scenario, self.world
        at = scenario.start_at + (epoch - 1) * scenario.length
        constraints = world.constraints(epoch)
        if constraints is not engine.state.constraints and constraints != engine.state.constraints:
            engine.constrain(constraints, at, OPERATOR, "changes")
        for series in world.of("produce", "grow"):
            engine.give(Kind(series.flow.kind), series.flow.name, series.requests(epoch, engine.state), at)
        for series in world.of("consume"):
            engine.need(series.flow.name, series.requests(epoch, engine.state), at)
        if scenario.holds != "expire":
            for proposal_id in list(engine.state.holds):
                engine.settle(proposal_id, scenario.holds, at, OPERATOR, f"holds: {scenario.holds}")
        self._proposals(epoch, at)
        for series in world.of("consume"):
            engine.take(series.flow.name, series.requests(epoch, engine.state), at)
        if scenario.storage:
            engine.spill(scenario.storage, at)
        if engine.state.holds:
            engine.expire(at)
        self._close(epoch, at + scenario.length)

    def _close(self, epoch: int, at: int) -> None:
        commons = self.scenario.commons
        if commons is not None:
            left = self.engine.state.balance(commons.actor, commons.resource)
            if commons.collapse_below is not None and left < commons.collapse_below:
                self.collapsed = epoch
        self.engine.close(at, collapsed=self.collapsed is not None)

    # --- proposals ------------------------------------------------------------------------------------------------

    def _proposals(self, epoch: int, at: int) -> None:
        """All rounds of an epoch; in each, shadows come first, so that they are judged on what the others see."""
        order = self.scenario.decisions.order
        seats = self.seats
        if order == "random":
            names = shuffled([seat.name for seat in seats], self.scenario.seed, epoch, "order")
            seats = sorted(seats, key=lambda seat: names.index(seat.name))
        rounds = [(seat, seat.rounds(epoch)) for seat in seats]
        for n in range(1, max((own for _, own in rounds), default=0) + 1):
            turn = sorted((seat for seat, own in rounds if n <= own), key=lambda seat: not seat.shadow)
            if order == "simultaneous":
                self._together(turn, epoch, n, at)
            else:
                for seat in turn:
                    self._conclude(seat, self._ask(seat, epoch, n), epoch, n, at)

    def _ask(self, seat: Seat, epoch: int, n: int) -> Proposal | Malformed | Unavailable:
        """One question to one proposer, and its answer as a proposal of this round."""
        state = self.engine.state
        round_ = Round(epoch, seat.name, n)
        context = Context(round_, state, seat.speaker.actor, tuple(seat.history), seat.mandate)
        answer = seat.proposer.propose(context)
        if isinstance(answer, Answer):
            said = answer.transfers, answer.reasoning
            return Proposal(round_.proposal_id, seat.name, n, *said, state.seen, seat.mandate)
        if isinstance(answer, Unavailable) and seat.speaker.on_unavailable == "stop":
            raise ProposerFailed(
                f"epoch {epoch}: proposer {seat.name} is unavailable ({answer.kind}: {answer.detail}); nothing was "
                f"exported; on_unavailable: record would go on and count it"
            )
        return answer

    def _conclude(self, seat: Seat, said: Proposal | Malformed | Unavailable, epoch: int, n: int, at: int) -> None:
        """Judges what was said: applied for an active proposer, kept aside for a shadow."""
        engine = self.engine
        if isinstance(said, Proposal):
            decision = decide(engine.state, said) if seat.shadow else engine.propose(said, at)
        else:
            proposal_id = Round(epoch, seat.name, n).proposal_id
            if seat.shadow:
                decision = faulted(proposal_id, seat.name, n, said)
            else:
                decision = engine.fail(proposal_id, seat.name, n, said, at)
        if seat.shadow:
            self.shadows.append((epoch, decision))
        seat.history.append(decision)

    def _together(self, seats: Sequence[Seat], epoch: int, n: int, at: int) -> None:
        """All are asked on the same state, then granted their shares, then judged one by one."""
        said = [self._ask(seat, epoch, n) for seat in seats]
        grants = self._grants(seats, said, epoch, n)
        for seat, answer in zip(seats, said, strict=True):
            grant = grants.get(seat.name)
            if grant is None or grant.asked is None:
                self._conclude(seat, answer, epoch, n, at)
            else:
                asked = grant.asked.transfers
                decision = self.engine.propose(grant.proposal, at, asked=asked)
                seat.history.append(decision)

    def _grants(
        self, seats: Sequence[Seat], said: Sequence[Proposal | Malformed | Unavailable], epoch: int, n: int
    ) -> dict[str, Grant]:
        """What each active proposer is granted, by name; empty where nothing is allocated."""
        how = self.scenario.decisions.allocation
        if how == "refuse":
            return {}
        pairs = zip(seats, said, strict=True)
        asking = [answer for seat, answer in pairs if isinstance(answer, Proposal) and not seat.shadow]
        share: Share = proportional
        if how == "random":
            seed = self.scenario.seed
            share = served(lambda name: draw(seed, epoch, name, f"allocation/{n}"))
        return {g.proposal.proposer: g for g in allocate(self.engine.state, asking, share)}
