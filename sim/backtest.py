"""A changed prompt or model on the questions that history asked: judged on the same state, compared, never applied.

    questions (of the old side) -> ask the new side -> decide on the same state -> compare in pairs -> a verdict

An outage is no decision: what is unavailable is counted apart and never paired. The statistics are in `paired`, what a
proposal serves in `onestep`, must-pass cases in `cases`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from operator import eq, ge, gt, le, lt
from pathlib import Path
from typing import Any, NamedTuple

from gridgov.cassette import CassetteProposer, Interaction, Recorder, Recording, other_models, read, recording
from gridgov.decide import decide, faulted
from gridgov.errors import BadInput, ProposerFailed
from gridgov.journal import Decision
from gridgov.model import Malformed, Outcome, Proposal, Round, Unavailable
from gridgov.prompt import FOLDER, MODEL, Prompt, load
from gridgov.propose import Answer, Context, Proposer
from gridgov.source import Source
from gridgov.wire import known
from sim import cases as must_pass
from sim import onestep, paired
from sim.cases import Case, Tried
from sim.live import Live
from sim.paired import BETTER, WORSE, Paired
from sim.questions import Question, accepted, codes, questions, rounds

__all__ = ["Candidate", "Report", "asked", "backtest", "opened", "policed", "record_answers", "rounds", "rule", "taped"]

SAMPLES = 5
"""How often a live model is asked each question."""

SHIP, DONT_SHIP, NOT_DECISIVE = "ship", "don't ship", "not decisive"

Said = tuple[Answer | Malformed | Unavailable, Interaction]


# --- the new side -----------------------------------------------------------------------------------------------------


class Candidate:
    """Whoever is asked: each question `samples` times. The same question on the same state is asked once.

    `of` gives who answers questions that the old side was asked with a prompt and a model. `live`: how a model is
    asked; where that is unavailable it ends, and goes on from `recording` when it is run again.
    """

    def __init__(
        self,
        of: Callable[[str, str | None], Recording | CassetteProposer],
        samples: int,
        *,
        live: Live | None = None,
        recording: Path | None = None,
    ) -> None:
        self.live = live
        self.recording = recording
        self._of = of
        self._samples = samples
        self._known: dict[str, list[Said]] = {}
        self.used: list[Interaction] = []

    @property
    def samples(self) -> int:
        """How often each question is asked."""
        return self._samples

    def ask(self, context: Context, prompt: str, model: str | None, key: str) -> list[Said]:
        """The answers. Raises ProposerFailed where there is none to be had."""
        if key not in self._known:
            proposer = self._of(prompt, model)
            self._known[key] = [self._one(proposer, context) for _ in range(self._samples)]
        return self._known[key]

    def _one(self, proposer: Recording | CassetteProposer, context: Context) -> Said:
        answer = proposer.propose(context)
        if self.live is not None and isinstance(answer, Unavailable):
            where = f"epoch {context.round.epoch}, {context.round.proposer}"
            raise ProposerFailed(f"{where}: the model is unavailable ({answer.kind}: {answer.detail})")
        self.used.append(proposer.interactions[-1])
        return answer, proposer.interactions[-1]


def taped(path: Path, samples: int | None, prompt: str | None = None, model: str | None = None) -> Candidate:
    """Plays a cassette of answers to these questions, strictly; by default as many samples as it has of its first."""
    cassette = read(path)
    if samples is None:
        first = cassette.interactions[0].round if cassette.interactions else Round(0, "", 0)
        samples = len({one.request_key for one in cassette.interactions if one.round == first}) or 1
    played = CassetteProposer(cassette, prompt=None if prompt is None else load(prompt, FOLDER), model=model)
    return Candidate(lambda *_: played, samples)


def asked(
    live: Live,
    recorder: Recorder,
    samples: int | None,
    prompt: str | None = None,
    model: str | None = None,
) -> Candidate:
    """Asks a live model, and records; what was recorded is not paid for twice. What is not named stays as it was.

    Where the old side was no model (a policy, synthetic replies), the model is the usual one.
    """
    made: dict[tuple[str, str], Recording] = {}

    def of(old_prompt: str, old_model: str | None) -> Recording:
        usual = MODEL if old_model is None or old_model.startswith("synthetic/") else old_model
        who = prompt or old_prompt, model or usual
        if who not in made:
            made[who] = Recording(live, _loaded(who[0]), recorder, model=who[1], ask_again=True)
        return made[who]

    return Candidate(of, SAMPLES if samples is None else samples, live=live, recording=recorder.path)


@contextmanager
def opened(
    cassette: Path | None,
    live: Live | None,
    record: Path | None,
    samples: int | None,
    prompt: str | None,
    model: str | None,
) -> Iterator[Candidate]:
    """The new side as a command names it. What came is recorded when the block ends, however it ends."""
    if cassette is not None:
        yield taped(cassette, samples, prompt, model)
        return
    assert live is not None and record is not None, "a live model is recorded"
    if prompt is not None:
        _loaded(prompt)
    record.parent.mkdir(parents=True, exist_ok=True)
    with Recorder(record, resume=True) as recorder:
        yield asked(live, recorder, samples, prompt, model)


def policed(policy: Proposer, name: str, recorder: Recorder, samples: int = 1, prompt: str | None = None) -> Candidate:
    """Asks a policy, and records its answers as synthetic replies: a cassette for `taped`, where there is no model."""
    made: dict[str, Recording] = {}

    def of(old_prompt: str, _: str | None) -> Recording:
        who = prompt or old_prompt
        if who not in made:
            made[who] = recording(policy, name, _loaded(who), recorder)
        return made[who]

    return Candidate(of, samples)


def _loaded(name: str) -> Prompt:
    return load(name, FOLDER)


def judged(context: Context, answer: Answer | Malformed | Unavailable) -> Decision:
    """What an answer would come to on the state of its question; nothing is applied."""
    id_, (_, proposer, n) = context.round.proposal_id, context.round
    if not isinstance(answer, Answer):
        return faulted(id_, proposer, n, answer)
    return decide(context.state, Proposal(id_, proposer, n, *answer, context.state.seen, context.mandate))


# --- one question -----------------------------------------------------------------------------------------------------


class Came(NamedTuple):
    """What one answer came to. `accepted` and `regret` are None where they say nothing; see their functions."""

    outcome: str
    codes: tuple[str, ...]
    accepted: bool | None
    regret: float | None


def came(context: Context, decision: Decision) -> Came:
    """A decision as what is compared; `regret` is that of `onestep.regret`, None without an answer or any need."""
    regret = None
    if decision.outcome is not Outcome.UNAVAILABLE:
        regret = onestep.regret(onestep.steps(context.state, decision, context.mandate).values())
    return Came(decision.outcome.value, codes(decision), accepted(decision), regret)


@dataclass(frozen=True)
class Row:
    """One question: what the old answer came to, and each of the new ones. `nothing` is the regret of doing nothing."""

    round: Round
    old: Came
    new: tuple[Came, ...]
    nothing: float | None
    moved: bool
    rejudged: bool

    @cached_property
    def pair(self) -> tuple[bool, bool] | None:
        """Old and new accepted or not: one answer against one, the first decision; None where either has none.

        One, and not the majority of several: that would agree with itself more often than one answer does with another
        of the same model, and two sides that are alike would seem to differ.
        """
        first = self.first
        if first is None or first.accepted is None or self.old.accepted is None:
            return None
        return self.old.accepted, first.accepted

    @property
    def first(self) -> Came | None:
        """The first new answer that is a decision; None where all are outages."""
        return next((one for one in self.new if one.outcome != Outcome.UNAVAILABLE), None)

    @property
    def flip(self) -> str | None:
        """worse: accepted before and refused now (rejected, or malformed); better: the reverse. Held is neither."""
        if self.pair == (True, False) and self.first is not None and self.first.outcome != Outcome.HELD:
            return WORSE
        return BETTER if self.pair == (False, True) and self.old.outcome != Outcome.HELD else None

    @cached_property
    def regret(self) -> float | None:
        """The mean regret of the new answers."""
        return _mean(one.regret for one in self.new)

    def document(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **self.round._asdict(),
            "proposal_id": self.round.proposal_id,
            "old": _came_document(self.old),
            "new": {
                "outcomes": dict(Counter(one.outcome for one in self.new)),
                "regret": self.regret,
                "samples": [_came_document(one) for one in self.new],
            },
            "flip": self.flip,
            "regret_of_nothing": self.nothing,
        }


def _came_document(one: Came) -> dict[str, Any]:
    return {"outcome": one.outcome, "codes": list(one.codes), "accepted": one.accepted, "regret": one.regret}


def _mean(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return sum(found) / len(found) if found else None


# --- one side ---------------------------------------------------------------------------------------------------------


class Noise(NamedTuple):
    """How often two answers of one side to the same question differ in being accepted.

    `flips` is how many flips are to be expected between two answers to each of these `questions`.
    """

    questions: int
    samples: int
    flips: float


def noise(groups: Iterable[Sequence[Came]]) -> Noise | None:
    """The noise of a side, over the questions that it answered more than once; None where there is none.

    Of k answers of which a are accepted, two that are drawn differ with 2 a (k - a) / (k (k - 1)).
    """
    kept = [[one.accepted for one in group if one.accepted is not None] for group in groups]
    kept = [group for group in kept if len(group) > 1]
    if not kept:
        return None
    flips = sum(2 * sum(group) * (len(group) - sum(group)) / (len(group) * (len(group) - 1)) for group in kept)
    return Noise(len(kept), sum(map(len, kept)), flips)


@dataclass(frozen=True)
class Side:
    """What one side's answers came to, over all questions and samples."""

    outcomes: Mapping[str, int]
    codes: Mapping[str, Mapping[str, int]]
    acceptance: float | None
    interval: paired.Interval | None
    regret: float | None
    noise: Noise | None

    def document(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "outcomes": {outcome.value: self.outcomes.get(outcome.value, 0) for outcome in Outcome},
            "codes": {outcome: dict(of) for outcome, of in self.codes.items()},
            "acceptance": self.acceptance,
            "acceptance_interval": None if self.interval is None else list(self.interval),
            "regret": self.regret,
            "noise": None if self.noise is None else self.noise._asdict(),
        }


def side(groups: Sequence[Sequence[Came]], noise_of: Iterable[Sequence[Came]]) -> Side:
    """Sums up a side: acceptance is executed / (executed + rejected + held + malformed), as in the metrics.

    Its interval counts questions, not samples: answers to one question are not independent of each other.
    """
    every = [one for group in groups for one in group]
    counted = [one.accepted for one in every if one.accepted is not None]
    share = sum(counted) / len(counted) if counted else None
    asked_ = sum(any(one.accepted is not None for one in group) for group in groups)
    reasons: dict[str, Counter[str]] = {}
    for one in every:
        if one.codes:
            reasons.setdefault(one.outcome, Counter()).update(one.codes)
    return Side(
        Counter(one.outcome for one in every),
        reasons,
        share,
        None if share is None else paired.wilson(share, asked_),
        _mean(_mean(one.regret for one in group) for group in groups),
        noise(noise_of),
    )


# --- rules ------------------------------------------------------------------------------------------------------------

_TESTS: Mapping[str, Callable[[Any, Any], bool]] = {"<=": le, ">=": ge, "==": eq, "<": lt, ">": gt}
_RULE = re.compile(r"\s*([a-z_]+(?:/[a-z_]+)?)\s*(<=|>=|==|<|>)\s*(-?[0-9]{1,15}(?:\.[0-9]{1,15})?)\s*")
FIGURES = (
    "acceptance", "acceptance_difference", "regret", "regret_difference", "flips", "flips_worse", "flips_better",
    "cost", *(outcome.value for outcome in Outcome),
)  # fmt: skip
"""What a rule may be about: of the new side, over all samples; outcomes are counted, also as rejected/CODE."""


class Rule(NamedTuple):
    """When not to ship, as `acceptance<0.9`."""

    text: str
    figure: str
    test: str
    value: Decimal


def rule(text: str) -> Rule:
    """Reads a rule. Raises BadInput where it is none."""
    match = _RULE.fullmatch(text)
    if match is None:
        raise BadInput(f"--fail-if {text}: expected FIGURE, then < <= > >= or ==, then a number, as acceptance<0.9")
    figure, slash, _ = match[1].partition("/")
    try:
        known(figure, [outcome.value for outcome in Outcome] if slash else FIGURES, "figure", ())
    except BadInput as error:
        raise BadInput(f"--fail-if {text}: {error}") from None
    return Rule(text.strip(), match[1], match[2], Decimal(match[3]))


class Checked(NamedTuple):
    """A rule with what was found. One whose figure is undefined holds: what can't be seen is no reason to ship."""

    text: str
    found: float | None
    holds: bool


# --- all of it --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Report:
    """What a backtest came to: every figure that is printed."""

    source: str
    run_id: str | None
    candidate: Sequence[str]
    rows: Sequence[Row]
    samples: int
    old: Side
    new: Side
    cases: Sequence[Tried]
    rules: Sequence[Rule]
    used: Sequence[Interaction]
    calls: int | None
    recording: str | None = None
    old_origins: Mapping[str, int] = field(default_factory=dict)
    old_names: Sequence[str] = ()
    old_costs: Sequence[Decimal] = ()

    @cached_property
    def acceptance(self) -> Paired:
        """Old and new accepted or not, for the questions at which both proposed something."""
        return paired.accepted([row.pair for row in self.rows if row.pair is not None])

    @cached_property
    def regret(self) -> Paired:
        """Old and new regret by epoch, for the questions that both answered."""
        sides: tuple[dict[int, list[float]], ...] = ({}, {})
        for row in self.rows:
            if row.old.regret is not None and row.regret is not None:
                for found, value in zip(sides, (row.old.regret, row.regret), strict=True):
                    found.setdefault(row.round.epoch, []).append(value)
        return paired.differing(*sides)

    @property
    def regret_of_nothing(self) -> float | None:
        """The mean regret of proposing nothing."""
        return _mean(row.nothing for row in self.rows)

    @cached_property
    def flips(self) -> Counter[str]:
        """How many questions flipped, by whether that is worse or better."""
        return Counter(row.flip for row in self.rows if row.flip is not None)

    @property
    def silent(self) -> int:
        """Questions at which the old answer was applied and no new one proposes anything."""
        return sum(
            row.old.accepted is True and all(one.outcome == Outcome.NOOP for one in row.new) for row in self.rows
        )

    @cached_property
    def spent(self) -> dict[str, Any]:
        """What the replies cost; `made` of them were asked for now (None: a cassette was played)."""
        tokens: Counter[str] = Counter()
        for one in self.used:
            tokens.update(one.usage)
        priced = [Decimal(one.cost) for one in self.used if one.cost is not None]
        return {
            "replies": len(self.used),
            "made": self.calls,
            "tokens": dict(sorted(tokens.items())),
            "cost": str(sum(priced, Decimal(0))) if priced else None,
            "price_table": next((one.price_table for one in self.used if one.price_table is not None), None),
            "other_model": sum(one.other_model for one in self.used),
            "other_models": other_models(self.used),
            "recording": self.recording,
        }

    @property
    def costs(self) -> tuple[float | None, float | None]:
        """What an answer of the old side and one of the new side cost in the mean, over those whose price is known."""
        new = [Decimal(one.cost) for one in self.used if one.cost is not None]
        return _mean(map(float, self.old_costs)), _mean(map(float, new))

    @cached_property
    def origins(self) -> dict[str, int]:
        """How many of the new side's replies a model gave, a person edited, or no model ever gave."""
        counted = Counter(one.origin for one in self.used)
        return {origin: counted[origin] for origin in ("recorded", "edited", "synthetic")}

    def figure(self, name: str) -> float | Decimal | None:
        """A figure that a rule is about; None where it is undefined."""
        outcome, slash, code = name.partition("/")
        if slash:
            return self.new.codes.get(outcome, {}).get(code, 0)
        if name in [each.value for each in Outcome]:
            return self.new.outcomes.get(name, 0)
        cost = self.spent["cost"]
        found: dict[str, float | Decimal | None] = {
            "acceptance": self.new.acceptance,
            "acceptance_difference": self.acceptance.difference,
            "regret": self.new.regret,
            "regret_difference": self.regret.difference,
            "flips": self.flips.total(),
            "flips_worse": self.flips[WORSE],
            "flips_better": self.flips[BETTER],
            "cost": None if cost is None else Decimal(cost),
        }
        return found[name]

    @cached_property
    def checked(self) -> list[Checked]:
        """The rules, each with what was found."""
        done = []
        for each in self.rules:
            found = self.figure(each.figure)
            exact = None if found is None else Decimal(str(found))
            holds = exact is None or _TESTS[each.test](exact, each.value)
            done.append(Checked(each.text, None if found is None else float(found), holds))
        return done

    @property
    def failed(self) -> list[str]:
        """What failed for certain: cases that did not hold, rules that do."""
        cases = [f"the case {one.name!r} held in {one.held} of {one.needed} samples" for one in self.cases]
        rules = [f"{one.text}: {_shown(one.found)}" for one in self.checked if one.holds]
        return [text for text, one in zip(cases, self.cases, strict=True) if not one.passed] + rules

    @cached_property
    def verdict(self) -> tuple[str, str]:
        """Whether to ship, and why in a sentence.

        `don't ship`: a must-pass case failed, a rule holds, or acceptance or regret is decisively worse. `ship`: one of
        the two is decisively better, and the other one not worse. Else `not decisive`: being equal, or too few
        questions to say so, is no reason for a change. So it is where the new side keeps silent at what the old one was
        applied for, and no need is known that says whether that was right. Each is tested by itself, at 95 %.
        """
        if self.failed:
            return DONT_SHIP, "; ".join(self.failed) + "."
        both = {"acceptance": self.acceptance, "regret": self.regret}
        worse = [_sentence(name, of) for name, of in both.items() if of.result == WORSE]
        if worse:
            return DONT_SHIP, "; ".join(worse) + "."
        better = [_sentence(name, of) for name, of in both.items() if of.result == BETTER]
        if better and self.silent and not self.regret.pairs:
            why = f"at {self.silent} questions the new side proposes nothing where the old one was applied"
            return NOT_DECISIVE, f"{'; '.join(better)}, but {why}, and no need is known to say whether that was right."
        if better:
            return SHIP, "; ".join(better) + "."
        if not any(of.pairs for of in both.values()):
            return NOT_DECISIVE, "there is no question that both sides answered with a proposal or a regret."
        return NOT_DECISIVE, "; ".join(_sentence(name, of) for name, of in both.items() if of.pairs) + "."

    def document(self) -> dict[str, Any]:
        """What `backtest --json` prints: plain values, unrounded."""
        verdict, reason = self.verdict
        return {
            "source": self.source,
            "run_id": self.run_id,
            "candidate": list(self.candidate),
            "history": list(self.old_names),
            "asked": len(self.rows),
            "samples": self.samples,
            "verdict": verdict,
            "reason": reason,
            "old": self.old.document(),
            "new": self.new.document(),
            "regret_of_nothing": self.regret_of_nothing,
            "flips": {WORSE: self.flips[WORSE], BETTER: self.flips[BETTER]},
            "silent": self.silent,
            "acceptance": _paired_document(self.acceptance),
            "regret": _paired_document(self.regret),
            "cases": [{**one._asdict(), "passed": one.passed} for one in self.cases],
            "rules": [one._asdict() for one in self.checked],
            "spent": self.spent,
            "cost_of_an_answer": dict(zip(("old", "new"), self.costs, strict=True)),
            "interactions": self.origins,
            "old_interactions": dict(self.old_origins),
            "state_moved": sum(row.moved for row in self.rows),
            "rejudged": sum(row.rejudged for row in self.rows),
            "questions": [row.document() for row in self.rows],
        }


def _paired_document(found: Paired) -> dict[str, Any]:
    return {**found._asdict(), "interval": None if found.interval is None else list(found.interval)}


def _shown(value: float | None) -> str:
    return "undefined, which fails" if value is None else f"it is {value:.4g}"


def _sentence(name: str, found: Paired) -> str:
    """One comparison in words."""
    of = "questions" if name == "acceptance" else "epochs"
    if found.pairs < paired.PAIRS_MIN:
        return f"{name}: {found.pairs} {of} are too few to say"
    assert found.old is not None and found.new is not None
    went = f"{name} went from {found.old:.3f} to {found.new:.3f} over {found.pairs} {of}"
    if found.old == found.new and (found.interval is None or not any(found.interval)):
        return f"{name} is {found.new:.3f} on both sides, over {found.pairs} {of}"
    how = (
        "no pair differs"
        if found.interval is None
        else f"95 % of {found.interval.low:+.3f} to {found.interval.high:+.3f}"
    )
    return f"{went} ({how}{'' if found.p is None else f', p {found.p:.3g}'}): {found.result}"


class Wanted(NamedTuple):
    """Which questions are asked (of this proposer or group, the last so many), what must pass, when not to ship."""

    proposer: str | None = None
    last: int | None = None
    cases: Sequence[Case] = ()
    rules: Sequence[Rule] = ()


EVERYTHING = Wanted()


def backtest(
    source: Source,
    candidate: Candidate,
    wanted: Wanted = EVERYTHING,
    *,
    baseline: Candidate | None = None,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Asks the candidate what a history was asked, and compares.

    Args:
        source: The history; its journal is checked while it is read, and nothing of it is changed.
        candidate: The new side.
        wanted: What is asked, and what must hold.
        baseline: The old side, asked the same questions again, for its noise.
        progress: Is told after each question of how many there were.

    Raises:
        BadInput: The history has no such question.
        ProposerFailed: The candidate or its budget failed; CassetteMiss: its cassette has no answer.
    """
    rows: list[Row] = []
    again: list[list[Came]] = []
    origins: Counter[str] = Counter()
    names: dict[str, None] = {}
    costs: list[Decimal] = []
    for question in questions(source, wanted.proposer, wanted.last):
        rows.append(_row(question, candidate))
        if question.origin is not None:
            origins[question.origin] += 1
        names[question.who] = None
        if question.cost is not None:
            costs.append(question.cost)
        if baseline is not None:
            again.append(_answers(question, baseline))
        if progress is not None:
            progress(len(rows))
    if not rows and not wanted.cases:
        whom = "" if wanted.proposer is None else f" of {wanted.proposer}"
        raise BadInput(f"{source.path}: no round{whom} was decided in it, so there is nothing to ask")
    passed = []
    for case in wanted.cases:
        said = candidate.ask(case.context, case.prompt, case.model, case.key)
        passed.append(must_pass.tried(case, [judged(case.context, answer) for answer, _ in said]))
    return Report(
        source=str(source.path),
        run_id=source.run_id,
        candidate=_names(candidate.used),
        rows=rows,
        samples=candidate.samples,
        old=side([[row.old] for row in rows], again),
        new=side([row.new for row in rows], [row.new for row in rows]),
        cases=passed,
        rules=wanted.rules,
        used=candidate.used,
        calls=None if candidate.live is None else candidate.live.calls,
        recording=None if candidate.recording is None else str(candidate.recording),
        old_origins=origins,
        old_names=list(names),
        old_costs=costs,
    )


def _answers(question: Question, candidate: Candidate) -> list[Came]:
    said = candidate.ask(question.context, question.prompt, question.model, question.key)
    return [came(question.context, judged(question.context, answer)) for answer, _ in said]


def _row(question: Question, candidate: Candidate) -> Row:
    context = question.context
    silence = judged(context, Answer((), ""))
    return Row(
        context.round,
        came(context, question.old),
        tuple(_answers(question, candidate)),
        came(context, silence).regret,
        question.old.state_moved,
        question.rejudged,
    )


def _names(used: Iterable[Interaction]) -> list[str]:
    """Who answered: model and prompt."""
    return list(dict.fromkeys(f"{one.model_asked}, prompt {one.prompt} {one.prompt_digest[:12]}" for one in used))


def record_answers(source: Source, policy: Proposer, name: str, path: Path, samples: int = 1) -> int:
    """Records what a policy answers to a history's questions, as a synthetic cassette; returns how many replies."""
    with Recorder(path) as recorder:
        candidate = policed(policy, name, recorder, samples)
        for question in questions(source):
            candidate.ask(question.context, question.prompt, question.model, question.key)
    return len(candidate.used)
