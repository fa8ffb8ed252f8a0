"""A run that goes on from another one's state at the close of an epoch, with one thing changed; played by `launch`.

The parent's journal up to that close is taken as it is: same records, same digests. From the next epoch on the changed
scenario is played: its constraints take effect as a change at the epoch's start, its flows and draws are those of its
epochs, and its proposers are asked. Draws are keyed by epoch, so that what is not changed is drawn as it was. What a
genesis fixes (seed, start, actors, resources, opening balances) cannot be changed, nor can a bound be had: a fork has
no regret. Policy `optimal` plans once, and knows what has happened until then: where anything is changed, over the rest
of the epochs from the state at the fork, else as its parent did.

What identifies a fork: its run_id is 16 hex of sha256 over the parent's run_id, the epoch, the parent's head at its
close, the changed scenario as `Scenario.resolved` gives it, and its proposers with what their files hold (and when it
started, where a live model answers). `runs.overrides` begin with `fork=RUN@EPOCH`; then come the parent's, and behind
`after=EPOCH` those of the fork (there may be none, where `optimal` plans from there). The genesis is the parent's: it
does not tell the fork's constraints, flows or horizon.

How to make it again: from the fork's export alone. Fork that export at the epoch in `fork=` with nothing changed: its
own journal up to there is the parent's, its scenario, overrides, files and proposers are in it (`reopened`), and a live
model's replies are among its interactions. The head digest is the same. (The run_id is not: it names another parent.)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from gridgov.amounts import to_minor
from gridgov.cassette import read_lines
from gridgov.errors import BadInput
from gridgov.journal import Decision, JournalRecord
from gridgov.model import Code, Outcome, Resource, Transfer, Violation
from gridgov.replay import follow
from gridgov.source import Source
from gridgov.state import State
from gridgov.whatif import prices_of
from gridgov.wire import timestamp
from sim.launch import Past, identities
from sim.loading import constraints_edit, loads
from sim.scenario import Scenario, Since

FIXED = ("seed", "start", "epoch_length", "first_row", "resources", "actors", "opening")
"""What a genesis says, and no later record can change."""

FORK = "fork="
"""How the first of a fork's overrides begins."""

AFTER = "after="
"""What stands, with an epoch, before the overrides that hold only after it."""


class Forked(NamedTuple):
    """A fork, ready to be played: the changed scenario, and what it takes over."""

    scenario: Scenario
    past: Past


def place(text: str) -> tuple[str, int]:
    """The run and the epoch of `RUN@EPOCH`. Raises BadInput."""
    run, _, epoch = text.rpartition("@")
    if not run or not epoch.isascii() or not epoch.isdigit() or len(epoch) > 9:
        raise BadInput(
            f"--fork {text}: expected RUN@EPOCH: a run, and the epoch after whose close it goes on (0: none)"
        )
    return run, int(epoch)


def forked(
    source: Source,
    epoch: int,
    folder: Path,
    sets: Sequence[str] = (),
    *,
    epochs: int | None = None,
    proposer: str | None = None,
) -> Forked:
    """A fork of a run at the close of an epoch; 0 is the genesis.

    Args:
        source: The parent's export.
        folder: Where the parent's files are put; they must stay there until the fork is exported.
        sets: `KEY=VALUE` into the parent's scenario, after the overrides that it was run with. Constraints are set on
            top of whatever the scenario's own changes have come to by then, and will later.
        epochs: The horizon instead of the parent's.
        proposer: How each non-shadow proposer answers instead, as in `sim.loading.load`.

    Raises:
        BadInput: There is nothing after that epoch, a change is of what a genesis fixes, or as `loads` says.
    """
    if source.connection is None:
        raise BadInput(f"{source.path}: only a run can be forked, from its .duckdb export: it has the scenario")
    if '"whatif=' in source.info["overrides"]:
        raise BadInput(f"{source.path}: is what another run would have been, and nobody plays it; fork that run")
    last = source.info["epochs"]
    if epoch >= last:
        raise BadInput(f"--fork: {source.path} ends with epoch {last}; choose an epoch from 0 to {last - 1}")
    kept = _kept(source, folder)
    spec = _spec(source, kept)
    parent = _loaded(source, kept, proposer=spec)
    changed = _loaded(source, kept, epoch, sets, epochs, proposer or spec)
    if changed.epochs <= epoch:
        raise BadInput(f"--fork: the fork would end with epoch {changed.epochs}, before it begins; give more --epochs")
    was, now = parent.resolved(), changed.resolved()
    for key in FIXED:
        if was.get(key) != now.get(key):
            raise BadInput(f"--set {key}: a fork keeps what its parent began with; run the scenario anew to change it")
    records = _until(source, epoch)
    if any(speaker.policy == "optimal" for speaker in changed.speakers):
        changed = _planned(changed, records, epoch, differs=(was, parent.speakers) != (now, changed.speakers))
    shadows = _shadows(source, {resource.name: resource for resource in parent.resources}, epoch)
    rows = list(_interactions(source))
    run_id = source.run_id
    assert run_id is not None, "an export has one"
    return Forked(changed, Past(run_id, epoch, records, shadows, rows, prices_of(source)))


def _planned(scenario: Scenario, records: Sequence[JournalRecord], epoch: int, *, differs: bool) -> Scenario:
    """The scenario with where policy `optimal` begins to plan: the last epoch that an override names is that."""
    since = max((after for after, _ in in_turn(scenario.overrides)[1][-1:]), default=0)
    if differs or since > epoch:
        if since != epoch:
            scenario = replace(scenario, overrides=(*scenario.overrides, f"{AFTER}{epoch}"))
        since = epoch
    if not since:
        return scenario
    state = State()
    for record in records:
        follow(state, record)
        if record.epoch == since and record.kind == "close":
            break
    held = {(actor, name): amount for name, own in state.balances.items() for actor, amount in own.items()}
    hindered = "proposals wait for approval" if state.holds else "the grid is paused" if state.paused else ""
    return replace(scenario, since=Since(since, held, hindered))


def _until(source: Source, epoch: int) -> list[JournalRecord]:
    """The records up to the close of an epoch; the whole chain is checked."""
    found, closed = [], False
    for record in source.records():
        if not closed:
            found.append(record)
            closed = record.epoch == epoch and record.kind in ("close", "genesis")
    return found


# --- a scenario from an export ----------------------------------------------------------------------------------------


class _Kept(NamedTuple):
    """The files of an export, written to a folder: paths by name, names by digest, and the scenario."""

    paths: dict[str, Path]
    digests: dict[str, str]
    file: str
    text: str

    def find(self, name: str) -> Path:
        """Where a file is that the scenario names."""
        return self.paths.get(name, Path(name))


def _kept(source: Source, folder: Path) -> _Kept:
    files = source.files()
    scenarios = [name for name in files if name.startswith("scenario:")]
    if not scenarios:
        raise BadInput(f"{source.path}: holds no scenario, so nothing can go on from it")
    paths = {}
    for number, (name, content) in enumerate(files.items()):
        paths[name] = folder / str(number) / Path(name).name
        paths[name].parent.mkdir(exist_ok=True)
        paths[name].write_bytes(content)
    digests = {f"sha256:{sha256(content).hexdigest()}": name for name, content in files.items()}
    file = scenarios[0].removeprefix("scenario:")
    return _Kept(paths, digests, file, files[scenarios[0]].decode())


def reopened(source: Source, folder: Path) -> Scenario:
    """The scenario of a run as it was run: from its export alone, with its files put into a folder.

    Overrides, seed and horizon are those of the run, and so are the proposers, whatever the scenario's file says of
    them (`--proposer`). Raises BadInput where the export does not hold what it takes.
    """
    kept = _kept(source, folder)
    return _loaded(source, kept, proposer=_spec(source, kept))


def _loaded(
    source: Source,
    kept: _Kept,
    after: int | None = None,
    sets: Sequence[str] = (),
    epochs: int | None = None,
    proposer: str | None = None,
) -> Scenario:
    """The scenario of a run, and, after an epoch, further changes."""
    own = [text for text in json.loads(source.info["overrides"]) if not text.startswith(FORK)]
    overrides = [*own, *([f"{AFTER}{after}"] if after is not None and sets else []), *sets]
    given = {_key(text) for text in sets}
    horizon = source.info["horizon"] if epochs is None and "epochs" not in given else epochs
    seed = None if "seed" in given else int(source.info["seed"])
    base, later = in_turn(overrides)
    base += [text for _, some in later for text in some if not _of_constraints(text)]
    found = loads(kept.text, kept.file, kept.find, base, horizon, seed, proposer)
    for epoch, some in later:
        found = _constrained(found, epoch, [text for text in some if _of_constraints(text)])
    names = {str(path): name for name, path in kept.paths.items()}
    return replace(
        found,
        overrides=tuple(overrides),
        files={names.get(name, name): path for name, path in found.files.items()},
        speakers=tuple(each._replace(file=names.get(each.file or "", each.file)) for each in found.speakers),
    )


def _key(text: str) -> str:
    return text.partition("=")[0].strip()


def _of_constraints(text: str) -> bool:
    return _key(text).startswith("constraints.")


def in_turn(overrides: Sequence[str]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The overrides of a run, and those of each fork on the way to it with the epoch after which they hold."""
    base: list[str] = []
    later: list[tuple[int, list[str]]] = []
    for text in overrides:
        if text.startswith(AFTER):
            later.append((int(text.removeprefix(AFTER)), []))
        else:
            (later[-1][1] if later else base).append(text)
    return base, later


def _constrained(scenario: Scenario, epoch: int, sets: Sequence[str]) -> Scenario:
    """The scenario with other constraints after an epoch: set on top of whatever is in force then, and later."""
    if not sets:
        return scenario
    edit = constraints_edit(sets)
    resources, actors = {each.name: each for each in scenario.resources}, [each.id for each in scenario.actors]
    steps = [(first, found) for first, found in scenario.constraints if first <= epoch]
    steps.append((epoch + 1, edit(scenario.constraints_at(epoch + 1), resources, actors)))
    steps += [(first, edit(own, resources, actors)) for first, own in scenario.constraints if first > epoch + 1]
    return replace(scenario, constraints=tuple(steps))


def _spec(source: Source, kept: _Kept) -> str | None:
    """The `--proposer` that a run was given, as its proposers show; None where they are those of its scenario."""
    wanted = json.loads(source.info["proposers"])
    active = [each for each in wanted if each["role"] != "shadow"]
    with suppress(BadInput):  # a file that `--proposer` made unnecessary is not in the export
        if identities(_loaded(source, kept)) == wanted:
            return None
    if active and active[0]["kind"] in ("cassette", "fixture"):
        said = str(kept.paths[kept.digests[active[0]["file"]]])
    elif active:
        said = active[0]["policy"] if active[0]["kind"] == "policy" else active[0]["model"]
    spec = f"{active[0]['kind']}:{said}" if active else None
    if identities(_loaded(source, kept, proposer=spec)) != wanted:
        raise BadInput(f"{source.path}: its proposers cannot be made of what is in it")
    return spec


# --- what no record says ----------------------------------------------------------------------------------------------


def _interactions(source: Source) -> Iterator[dict[str, Any]]:
    """The interactions of a run, as `tables.Run` takes them."""
    for row in source.named("interactions"):
        called = row.pop("called_us")
        row["proposal_id"] = str(row["proposal_id"])
        yield {**row, "at": None if called is None else timestamp(called)}


def recording_of(past: Past) -> str:
    """The parent's recorded replies as a cassette, each line once: what is asked again is answered by them."""
    lines = list(dict.fromkeys(row["line"] for row in past.interactions))
    read_lines([f"{line}\n".encode() for line in lines], f"the replies of {past.run_id}")
    return "".join(f"{line}\n" for line in lines)


def _shadows(source: Source, resources: Mapping[str, Resource], epoch: int) -> list[tuple[int, Decision]]:
    """What shadows proposed until an epoch, as it was judged: read back from the tables of the export."""
    found = []
    for row in list(source.named("shadows", epoch=epoch)):
        transfers = tuple(
            Transfer(giver, taker, resource, _amount(amount, text, resources.get(resource)))
            for giver, taker, resource, amount, text in source.rows("shadow_transfers", proposal=row["proposal_id"])
        )
        decision = Decision(
            row["proposal_id"],
            row["proposer"],
            row["n"],
            row["input"],
            transfers,
            row["reasoning"],
            Outcome(row["outcome"]),
            tuple(_violation(one, resources) for one in json.loads(row["violations"], parse_float=Decimal)),
            held_until=row["held_until"],
            state_moved=row["state_moved"],
            fault=row["fault"] or "",
            detail=row["detail"] or "",
        )
        if decision.outcome is Outcome.EXECUTED:
            entries = source.rows("shadow_entries", proposal=row["proposal_id"])
            decision = decision._replace(entries=tuple(entry for (entry,) in entries))
        found.append((row["epoch"], decision))
    return found


def _amount(amount: Decimal | None, text: str | None, resource: Resource | None) -> int | Decimal:
    """The amount that was asked for: minor units, or a Decimal where they could not express it."""
    value = Decimal(text) if amount is None and text is not None else amount
    assert value is not None, "one of them holds it"
    minor = None if resource is None else to_minor(value, resource.scale)
    return value if minor is None else minor


def _violation(row: Mapping[str, Any], resources: Mapping[str, Resource]) -> Violation:
    resource = resources.get(row.get("resource") or "")
    limit, actual = (
        to_minor(value, resource.scale) if resource is not None and isinstance(value, int | Decimal) else value
        for value in (row.get("limit"), row.get("actual"))
    )
    return Violation(Code(row["code"]), row["path"], limit, actual, None if resource is None else resource.name)
