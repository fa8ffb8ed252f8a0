"""The way from the YAML of a scenario to a `Scenario`; what a key may say is in `form`, and nothing runs here.

Names are checked against each other, templates expanded, amounts turned into minor units. Every error says file, line,
key, what was found and what was expected.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple

from gridgov import amounts
from gridgov.errors import BadInput
from gridgov.model import BOUNDARY, BOUNDARY_TYPE, Constraints, Resource
from gridgov.wire import (
    LIMITS,
    constraints_from_json,
    constraints_json,
    declared,
    known,
    microseconds,
    timestamp,
)
from sim import strict_yaml
from sim.form import (
    ACTORS_MAX,
    BALANCES_MAX,
    COMMONS_POLICIES,
    EPOCHS_MAX,
    METRICS,
    POLICIES,
    RESOURCE_METRICS,
    RUN_METRICS,
    ActorForm,
    AnyProposerForm,
    CassetteForm,
    ChangeForm,
    Decisions,
    GeminiForm,
    GrowFlowForm,
    NoiseForm,
    PolicyForm,
    PriceProfileForm,
    ProfileForm,
    ScenarioForm,
    read,
)
from sim.scenario import Commons, Expectation, Flow, Member, Noise, Price, Profile, Scaling, Scenario, Speaker
from sim.strict_yaml import Document, shown
from sim.strict_yaml import Path as YamlPath

SELF = "self"
"""What a mandate calls the actor that its proposer speaks for."""

PROMPT, PROMPT_OF_ACTOR = "propose_transfer", "speak_for_actor"
"""The prompts of proposers that name none: of those for everyone, and of those that speak for one actor."""


def load(
    path: str | Path,
    overrides: Sequence[str] = (),
    epochs: int | None = None,
    seed: int | None = None,
    proposer: str | None = None,
) -> Scenario:
    """The scenario of a file, checked and expanded; profiles are looked for here and read by `Scenario.check_files`.

    Args:
        path: The YAML file; paths in it, and in overrides, are relative to it.
        overrides: `KEY=VALUE`, a dotted key into the document and a YAML scalar or flow mapping, applied in order.
        epochs: The horizon instead of the scenario's.
        seed: The seed instead of the scenario's.
        proposer: How each non-shadow proposer answers instead: `policy:NAME`, `fixture:PATH`, `cassette:PATH` or
            `gemini:MODEL`; a path is relative to where the command runs.

    Raises:
        BadInput: One line: file and line (or the override), key, what was found and what was expected.
    """
    path = Path(path)
    text = strict_yaml.read_text(path)
    return loads(text, str(path), lambda file: path.parent / file, overrides, epochs, seed, proposer)


def loads(
    text: str,
    file: str,
    find: Callable[[str], Path],
    overrides: Sequence[str] = (),
    epochs: int | None = None,
    seed: int | None = None,
    proposer: str | None = None,
) -> Scenario:
    """As `load`, for a scenario that is no file: `find` says where each file is that it names."""
    edits = [_override(override) for override in overrides]
    edits += [_Edit(f"--{key} {n}", key, n) for key, n in (("epochs", epochs), ("seed", seed)) if n is not None]

    def edited(chosen: Sequence[_Edit]) -> Scenario:
        return _expanded(strict_yaml.parse(text, file), chosen, find, proposer, tuple(overrides))

    try:
        return edited(edits)
    except BadInput as error:
        for i, edit in enumerate(edits):
            if str(error).startswith(edit.label):
                break
            try:
                edited(edits[:i] + edits[i + 1 :])
            except BadInput:
                continue
            raise BadInput(f"{edit.label}: {error}", error.path) from None  # without it, all is well
        raise


class _Edit(NamedTuple):
    """What a command line changes in a document, and what messages call it."""

    label: str
    key: str
    value: Any


def _override(text: str) -> _Edit:
    label = "--set " + " ".join(text.encode(errors="backslashreplace").decode().split())
    key, equals, value = text.partition("=")
    if not equals:
        raise BadInput(f"{label}: found no =; expected KEY=VALUE")
    return _Edit(label, key.strip(), strict_yaml.parse_value(value, label))


def constraints_edit(
    texts: Sequence[str],
) -> Callable[[Constraints, Mapping[str, Resource], Collection[str]], Constraints]:
    """What `--set constraints....=VALUE` makes of constraints in force, by the rules of a scenario: amounts in units.

    Raises BadInput where a key is none of the constraints; what the edit returns does so where a value is wrong.
    """
    edits = [_override(text) for text in texts]
    for label, key, _ in edits:
        if not key.startswith("constraints."):
            raise BadInput(f"{label}: found the key {key}; expected constraints.<limit>: history has its other inputs")

    def edit(found: Constraints, resources: Mapping[str, Resource], actors: Collection[str]) -> Constraints:
        shown = {"hold_epochs": found.hold_epochs, **constraints_json(found, resources)}
        root = {"constraints": json.loads(json.dumps(shown), parse_float=Decimal)}
        made = found
        for label, key, value in edits:
            try:
                strict_yaml.assign(root, key, deepcopy(value), names=actors, shorthand=_is_limit)
                given = {name: own for name, own in root["constraints"].items() if own is not None}
                made = constraints_from_json(given, resources, actors)
            except BadInput as error:
                raise BadInput(f"{label}: {error}", error.path) from None
        return made

    return edit


def _expanded(
    document: Document,
    edits: Sequence[_Edit],
    find: Callable[[str], Path],
    proposer: str | None,
    overrides: tuple[str, ...],
) -> Scenario:
    if not isinstance(document.value, dict):
        raise document.bad((), f"found {shown(document.value)}; expected a scenario: a mapping")
    written = document.value.get("epochs")
    for label, key, value in edits:
        document.edit(key, deepcopy(value), label, _is_limit)
    form = read(document)
    horizon = max(written, form.epochs) if isinstance(written, int) else form.epochs
    return _Expansion(document, form, find, horizon, proposer).scenario(overrides)


def _is_limit(path: YamlPath) -> bool:
    """Whether a number at this path is short for {default: number}."""
    limits = {("constraints", name) for name in LIMITS} | {("constraints", "auto_pause", "moved_per_epoch")}
    return path in limits


class _Expansion:
    """One document on its way to a `Scenario`; `horizon` is the longer of the epochs written and in use."""

    def __init__(
        self, document: Document, form: ScenarioForm, find: Callable[[str], Path], horizon: int, answers: str | None
    ) -> None:
        self.document = document
        self.form = form
        self.find = find
        self.horizon = horizon
        self.answers = answers
        self.epochs = form.epochs
        self.files: dict[str, Path] = {}
        self.headers: dict[Path, tuple[str, ...]] = {}
        self.resources = {name: Resource(name, each.unit, each.scale) for name, each in form.resources.items()}
        self.members: dict[str, Member] = {}
        self.templates: list[str] = []

    def scenario(self, overrides: tuple[str, ...]) -> Scenario:
        """Everything, in the order in which parts need each other."""
        form = self.form
        start = self.start()
        self.name_resources()
        self.register()
        self.fits()
        opening, storage = self.balances()
        constraints = self.constraints()
        self.unique("flows", [each.name for each in form.flows], "name")
        flows = tuple(self.flow(i) for i in range(len(form.flows)))
        prices = {name: self.price(name) for name in form.prices}
        profiles = [flow.profile for flow in flows] + [price.profile for price in prices.values()]
        if form.first_row and not any(profiles):
            text = f"found {form.first_row}, but no flow and no price reads a file; expected no first_row"
            raise self.document.bad(("first_row",), text)
        commons = self.commons()
        return Scenario(
            file=self.document.file,
            source=self.document.text,
            overrides=overrides,
            name=form.name,
            description=(form.description or "").strip(),
            seed=form.seed,
            epochs=form.epochs,
            start_at=start,
            length=form.epoch_length,
            first_row=form.first_row,
            resources=tuple(self.resources.values()),
            actors=tuple(self.members.values()),
            opening=opening,
            storage=storage,
            constraints=constraints,
            flows=flows,
            prices=prices,
            scalings=tuple(self.scalings(flows)),
            decisions=self.decisions(),
            holds=form.holds,
            commons=commons,
            speakers=self.speakers(commons),
            expect=tuple(self.expectation(i) for i in range(len(form.expect))),
            files=self.files,
            document=self.document,
        )

    # --- what every part needs ------------------------------------------------------------------------------------

    def known(self, name: str, names: Collection[str], what: str, path: YamlPath) -> str:
        """The name, which must be one of these; else the error says which comes near."""
        try:
            known(name, names, what, path)
        except BadInput as error:
            raise self.document.bad(path, str(error)) from None
        return name

    def minor(self, value: int | Decimal, resource: str, path: YamlPath) -> int:
        """A declared amount in minor units of a known resource."""
        try:
            return declared(value, self.resources[resource], path)
        except BadInput as error:
            raise self.document.bad(path, str(error)) from None

    def one_of(self, path: YamlPath, value: Mapping[str, Any]) -> str:
        """The one of two keys whose value is not None."""
        given = [key for key, each in value.items() if each is not None]
        if len(given) != 1:
            found = " and ".join(given) or "neither"
            raise self.document.bad(path, f"found {found}; expected one of: {', '.join(value)}")
        return given[0]

    def unique(self, key: str, names: Sequence[str], what: str) -> None:
        """Each name once; the second is told of the first."""
        for i, name in enumerate(names):
            if name in names[:i]:
                path = (key, i, what)
                first = self.document.mark((key, names.index(name), what)).line
                raise self.document.bad(path, f"found {name!r} again (first on line {first}); expected another {what}")

    def match(self, ref: str, path: YamlPath) -> list[tuple[str, int | None]]:
        """The actors that an id or a template means, in their order, each with its number."""
        if "{n}" not in ref:
            actor = self.members[self.known(ref, [*self.members, *self.templates], "actor", path)]
            return [(actor.id, actor.n)]
        before, after = ref.split("{n}")
        numbered = re.compile(re.escape(before) + "([1-9][0-9]{0,8})" + re.escape(after))
        matches = ((actor, numbered.fullmatch(actor)) for actor in self.members)
        found = [(actor, int(match[1])) for actor, match in matches if match is not None]
        if not found:
            there = ", ".join([*self.templates, *(each.id for each in self.members.values() if each.n is None)][:8])
            raise self.document.bad(path, f"found no actor that {ref} matches; expected some: there are {there}")
        return list(found)

    def actors(self, refs: Sequence[str], path: YamlPath) -> list[tuple[str, int | None]]:
        """The actors of `actors:` or `mandate:`, each once."""
        many = isinstance(self._at(path), list)
        found: dict[str, int | None] = {}
        for i, ref in enumerate(refs):
            where = (*path, i) if many else path
            for actor, n in self.match(ref, where):
                if actor in found:
                    raise self.document.bad(where, f"found {actor} twice; expected each actor once")
                found[actor] = n
        return list(found.items())

    def _at(self, path: YamlPath) -> Any:
        value: Any = self.document.value
        for step in path:
            value = value[step]
        return value

    def existing(self, file: str, path: YamlPath) -> tuple[str, Path]:
        """A file that the scenario names and that must exist: its key in `files`, and where it is."""
        found = self.find(file)
        if not found.is_file():
            raise self.document.bad(path, f"found no file {found}; expected one (relative to the scenario's file)")
        return self.kept(file, found), found

    def kept(self, file: str, path: Path) -> str:
        """The key of a file in `files`: as written, unless another file was written so (see `--proposer`)."""
        key = file if self.files.get(file, path) == path else str(path.absolute())
        self.files[key] = path
        return key

    # --- who and what there is ------------------------------------------------------------------------------------

    def start(self) -> int:
        """The beginning of epoch 1; the end of the last one must be a time too."""
        try:
            start = microseconds(self.form.start)
        except BadInput as error:
            raise self.document.bad(("start",), str(error)) from None
        try:
            timestamp(start + self.epochs * self.form.epoch_length)
        except OverflowError:
            text = "found an end beyond the year 9999; expected fewer or shorter epochs"
            raise self.document.bad(("epochs",), text) from None
        return start

    def name_resources(self) -> None:
        """Resources may not be called what limits call other things."""
        for name, each in self.form.resources.items():
            if name in ("default", "actors"):
                raise self.document.bad(
                    ("resources", name), f"found the word {name}, which limits use; expected another"
                )
            if not each.unit.isprintable() or len(each.unit) > 32:
                path = ("resources", name, "unit")
                raise self.document.bad(path, f"found {shown(each.unit)}; expected at most 32 printable characters")

    def register(self) -> None:
        """Templates to actors, in order; ids are unique, and two words are not for actors."""
        for i, each in enumerate(self.form.actors):
            path: YamlPath = ("actors", i, "id")
            numbered = "{n}" in each.id
            if numbered and each.count is None:
                raise self.document.bad(path, f"found {each.id} without a count; expected count: how many there are")
            if each.count is not None and not numbered:
                raise self.document.bad(
                    ("actors", i, "count"), "found a count, but no {n} in the id; expected both or none"
                )
            if each.type == BOUNDARY_TYPE:
                raise self.document.bad(("actors", i, "type"), f"found {BOUNDARY_TYPE}; expected any other word")
            numbers: Iterable[int | None] = (None,) if each.count is None else range(1, each.count + 1)
            for n in numbers:
                self._member(each.id if n is None else each.id.replace("{n}", str(n)), each, n, path)
            if each.count is not None:
                self.templates.append(each.id)
        if len(self.members) > ACTORS_MAX:
            raise self.document.bad(("actors",), f"found {len(self.members):,} actors; expected at most {ACTORS_MAX:,}")

    def fits(self) -> None:
        """A run is in memory until it is exported: what no machine holds is refused before it fills one."""
        balances = self.epochs * len(self.members) * len(self.resources)
        if balances > BALANCES_MAX:
            text = (
                f"found {self.epochs:,} epochs of {len(self.members):,} actors with {len(self.resources):,} resources: "
                f"{balances:,} balances; expected at most {BALANCES_MAX:,}"
            )
            raise self.document.bad(("epochs",), text)

    def _member(self, actor: str, form: ActorForm, n: int | None, path: YamlPath) -> None:
        if actor in (BOUNDARY, SELF):
            raise self.document.bad(path, f"found {actor}, which is reserved; expected another id")
        if len(actor) > 64:
            raise self.document.bad(path, f"found {shown(actor)}; expected at most 64 characters")
        if actor in self.members:
            raise self.document.bad(path, f"found a second {actor}; expected every id once")
        self.members[actor] = Member(actor, form.type, n)

    def balances(self) -> tuple[tuple[tuple[str, str, int], ...], dict[tuple[str, str], int]]:
        """Opening balances and storage of every actor, in the order of actors and resources."""
        opening: list[tuple[str, str, int]] = []
        storage: dict[tuple[str, str], int] = {}
        members = iter(self.members)
        for i, each in enumerate(self.form.actors):
            balances = self._by_resource(each.balances, ("actors", i, "balances"))
            capacity = self._by_resource(each.storage, ("actors", i, "storage"))
            for _ in range(each.count or 1):
                actor = next(members)
                opening.extend((actor, resource, amount) for resource, amount in balances.items())
                storage.update({(actor, resource): amount for resource, amount in capacity.items()})
        return tuple(opening), storage

    def _by_resource(self, amounts_: Mapping[str, int | Decimal], path: YamlPath) -> dict[str, int]:
        for name in amounts_:
            self.known(name, self.resources, "resource", (*path, name))
        return {name: self.minor(amounts_[name], name, (*path, name)) for name in self.resources if name in amounts_}

    def commons(self) -> Commons | None:
        """The shared pool, if there is one."""
        form = self.form.commons
        if form is None:
            return None
        self.known(form.actor, self.members, "actor", ("commons", "actor"))
        self.known(form.resource, self.resources, "resource", ("commons", "resource"))
        if form.collapse_below is None:
            return Commons(form.actor, form.resource, None)
        least = self.minor(form.collapse_below, form.resource, ("commons", "collapse_below"))
        return Commons(form.actor, form.resource, least)

    # --- constraints and changes ----------------------------------------------------------------------------------

    def constraints(self) -> tuple[tuple[int, Constraints], ...]:
        """The constraints of every epoch: (first epoch, constraints), wherever they change."""
        base = dict(self.form.constraints)
        found = [(1, self._compile(base, lambda path: (path, ())))]
        sets = [(i, each) for i, each in enumerate(self.form.changes) if self._change(i) == "set"]
        for epoch in sorted({e for _, c in sets for e in (c.epoch, (c.until or c.epoch - 1) + 1)}):
            holding = [(i, c) for i, c in sets if c.epoch <= epoch <= (c.until or EPOCHS_MAX)]
            holding.sort(key=lambda each: each[1].epoch)
            compiled = self._changed(base, holding)
            if epoch > self.epochs or compiled == found[-1][1]:
                continue
            if epoch == found[-1][0]:
                found.pop()
            found.append((epoch, compiled))
        return tuple(found)

    def _change(self, i: int) -> str:
        """Whether a change is a set or a scale; its epochs are checked."""
        form, path = self.form.changes[i], ("changes", i)
        kind = self.one_of(path, {"set": form.set, "scale": form.scale})
        if form.epoch > self.horizon:
            text = f"found epoch {form.epoch}, beyond the last, {self.horizon}; expected an epoch of the scenario"
            raise self.document.bad((*path, "epoch"), text)
        self.in_order(form.epoch, form.until, (*path, "until"))
        return kind

    def in_order(self, first: int, until: int | None, path: YamlPath) -> None:
        """Refuses a span that ends before it begins."""
        if until is not None and until < first:
            raise self.document.bad(path, f"found {until}; expected {first} or later, where it begins")

    def _changed(self, base: Mapping[str, Any], holding: Sequence[tuple[int, ChangeForm]]) -> Constraints:
        """The constraints with all sets that hold applied, in order."""
        root = {"constraints": deepcopy(dict(base))}
        origins: list[tuple[YamlPath, YamlPath]] = []
        for i, change in holding:
            for key, value in (change.set or {}).items():
                path: YamlPath = ("changes", i, "set", key)
                if not key.startswith("constraints."):
                    raise self.document.bad(path, f"found the key {key}; expected constraints.<limit>")
                try:
                    at = strict_yaml.assign(root, key, deepcopy(value), names=self.members, shorthand=_is_limit)
                except BadInput as error:
                    raise self.document.bad(path, str(error)) from None
                origins.append((at, path))

        def origin(path: YamlPath) -> tuple[YamlPath, YamlPath]:
            """Where the latest set that this path lies at or below stands, and the path's rest below it."""
            for at, place in reversed(origins):
                if path[: len(at)] == at:
                    return place, path[len(at) :]
            return path, ()

        return self._compile(root["constraints"], origin)

    def _compile(
        self, value: Mapping[str, Any], origin: Callable[[YamlPath], tuple[YamlPath, YamlPath]]
    ) -> Constraints:
        """Constraints in minor units; null is as absent. Errors are told of where the value comes from."""
        given = {key: each for key, each in value.items() if each is not None or key not in Constraints._fields}
        try:
            return constraints_from_json(given, self.resources, self.members)
        except BadInput as error:
            place, rest = origin(error.path)
            raise self.document.bad((*place, *rest), str(error)) from None

    def scalings(self, flows: Sequence[Flow]) -> Iterator[Scaling]:
        """The changes that scale a flow, within the horizon."""
        for i, form in enumerate(self.form.changes):
            if form.scale is None:
                continue
            path = ("changes", i, "scale")
            self.known(form.scale.flow, [flow.name for flow in flows], "flow", (*path, "flow"))
            if form.epoch <= self.epochs:
                until = min(form.until or self.epochs, self.epochs)
                yield Scaling(form.scale.flow, form.epoch, until, Fraction(form.scale.by))

    # --- flows and prices -----------------------------------------------------------------------------------------

    def flow(self, i: int) -> Flow:
        """One flow, expanded to its actors."""
        form, path = self.form.flows[i], ("flows", i)
        self.known(form.resource, self.resources, "resource", (*path, "resource"))
        actors = self.actors(form.actors, (*path, "actors"))
        if form.from_ > self.horizon:
            text = f"found {form.from_}, beyond the last epoch, {self.horizon}; expected an epoch of the scenario"
            raise self.document.bad((*path, "from"), text)
        self.in_order(form.from_, form.until, (*path, "until"))
        until = min(form.until or self.epochs, self.epochs)
        names = tuple(actor for actor, _ in actors)
        found = Flow(form.name, form.kind, form.resource, names, form.from_, until, form.every)
        if isinstance(form, GrowFlowForm):
            cap = None if form.cap is None else self.minor(form.cap, form.resource, (*path, "cap"))
            return found._replace(factor=Fraction(form.factor), cap=cap)
        noise = self._noise(form.noise, form.resource, (*path, "noise"))
        if self.one_of(path, {"amount": form.amount, "profile": form.profile}) == "amount":
            assert form.amount is not None
            return found._replace(amount=self.minor(form.amount, form.resource, (*path, "amount")), noise=noise)
        assert form.profile is not None
        return found._replace(profile=self._profile(form.profile, form.resource, actors, path), noise=noise)

    def _noise(self, form: NoiseForm | None, resource: str, path: YamlPath) -> Noise | None:
        if form is None:
            return None
        widths = {"normal": form.normal, "uniform": form.uniform}
        kind: Literal["normal", "uniform"] = "normal" if self.one_of(path, widths) == "normal" else "uniform"
        return Noise(kind, Fraction(widths[kind] or 0) * 10 ** self.resources[resource].scale)

    def _profile(
        self, form: ProfileForm, resource: str, actors: Sequence[tuple[str, int | None]], path: YamlPath
    ) -> Profile:
        from sim.profiles import ratio

        path = (*path, "profile")
        unit = self.resources[resource].unit
        try:
            per_unit = ratio(form.unit or unit, unit) * 10 ** self.resources[resource].scale
        except BadInput as error:
            raise self.document.bad((*path, "unit"), str(error)) from None
        columns = [form.column] * len(actors)
        if "{n}" in form.column:
            unnumbered = next((actor for actor, n in actors if n is None), None)
            if unnumbered is not None:
                text = f"found {form.column}, but {unnumbered} has no number; expected actors from a template"
                raise self.document.bad((*path, "column"), text)
            columns = [form.column.replace("{n}", str(n)) for _, n in actors]
        return self._columns(form, tuple(columns), per_unit, path)

    def _columns(
        self, form: ProfileForm | PriceProfileForm, columns: tuple[str, ...], per_unit: Fraction, path: YamlPath
    ) -> Profile:
        """A profile whose file exists and has these columns."""
        from sim import profiles

        file, found = self.existing(form.file, (*path, "file"))
        try:
            if found not in self.headers:
                self.headers[found] = profiles.header(found)
        except BadInput as error:
            raise self.document.bad((*path, "file"), str(error)) from None
        for column in dict.fromkeys(columns):
            try:
                profiles.require(found, column, self.headers[found])
            except BadInput as error:
                raise self.document.bad((*path, "column"), str(error)) from None
        return Profile(file, found, columns, per_unit, form.round is not None, path)

    def price(self, resource: str) -> Price:
        """What a unit of a resource costs."""
        from sim.profiles import PRICE_SCALE

        form, path = self.form.prices[resource], ("prices", resource)
        self.known(resource, self.resources, "resource", path)
        self.one_of(path, {"amount": form.amount, "profile": form.profile})
        if form.amount is None:
            assert form.profile is not None
            if "{n}" in form.profile.column:
                text = f"found {form.profile.column}; expected one column: a price has no actors"
                raise self.document.bad((*path, "profile", "column"), text)
            return Price(
                None, self._columns(form.profile, (form.profile.column,), Fraction(10**PRICE_SCALE), (*path, "profile"))
            )
        price = amounts.to_minor(form.amount, PRICE_SCALE)
        if price is None or abs(price) >= amounts.LIMIT:
            text = f"found {shown(form.amount)}; expected at most {PRICE_SCALE} decimals, below 1e9"
            raise self.document.bad((*path, "amount"), text)
        return Price(price, None)

    # --- who decides, and what is expected ------------------------------------------------------------------------

    def decisions(self) -> Decisions:
        """As written; allocation is for those who decide at once."""
        found = self.form.decisions
        if found.order != "simultaneous" and found.allocation != "refuse":
            text = f"found {found.allocation} with order {found.order}; expected order: simultaneous, or no allocation"
            raise self.document.bad(("decisions", "allocation"), text)
        return found

    def speakers(self, commons: Commons | None) -> tuple[Speaker, ...]:
        """One proposer after the other, expanded to the actors that it speaks for."""
        forms = self.form.proposers
        found: list[Speaker] = []
        for i, name in enumerate(self._names()):
            path: YamlPath = ("proposers", i)
            form = forms[i]
            spoken: list[str | None] = [None]
            if form.actors is not None:
                spoken = [actor for actor, _ in self.actors(form.actors, (*path, "actors"))]
            template = self._answers(form, name, commons, path)
            mandates = self._mandates(form, spoken, (*path, "mandate"))
            for actor, mandate in zip(spoken, mandates, strict=True):
                own = name if actor is None else f"{name}/{actor}"
                found.append(template._replace(name=own, actor=actor, mandate=mandate))
        return tuple(found)

    def _names(self) -> list[str]:
        """The name of each proposer: as given, else after its policy or kind, with -2, -3 where taken."""
        forms = self.form.proposers
        self.unique("proposers", [form.name or f"/{i}" for i, form in enumerate(forms)], "name")
        taken = {form.name for form in forms}
        names = []
        for form in forms:
            first = form.policy if isinstance(form, PolicyForm) else form.kind
            name, n = form.name or first, 1
            while form.name is None and name in taken:
                n += 1
                name = f"{first}-{n}"
            taken.add(name)
            names.append(name)
        return names

    def _mandates(
        self, form: AnyProposerForm, spoken: Sequence[str | None], path: YamlPath
    ) -> Iterator[tuple[str, ...] | None]:
        """The mandate of each that a proposer speaks for, actors in their order; None is everyone."""
        refs = form.mandate
        if refs is None:
            yield from (None if actor is None else (actor,) for actor in spoken)
            return
        many = isinstance(self._at(path), list)
        common: set[str] = set()
        for i, ref in enumerate(refs):
            where = (*path, i) if many else path
            if ref != SELF:
                common.update(actor for actor, _ in self.match(ref, where))
            elif spoken == [None]:
                raise self.document.bad(where, "found self; expected actors: for whom the proposer speaks")
        place = {actor: i for i, actor in enumerate(self.members)}
        shared = tuple(sorted(common, key=place.__getitem__))
        for actor in spoken:
            if SELF in refs and actor is not None and actor not in common:
                yield tuple(sorted((*common, actor), key=place.__getitem__))
            else:
                yield shared

    def _answers(self, form: AnyProposerForm, name: str, commons: Commons | None, path: YamlPath) -> Speaker:
        """How a proposer answers, as written or as `--proposer` says instead."""
        prompt = PROMPT if form.actors is None else PROMPT_OF_ACTOR
        common = (form.role, None, None, form.proposals_per_epoch, form.context.history, form.on_unavailable)
        speaker = Speaker(name, name, form.kind, *common, None, None, None, None, prompt, None)
        if isinstance(form, CassetteForm | GeminiForm | PolicyForm):
            speaker = speaker._replace(prompt=form.prompt or prompt)
        if isinstance(form, CassetteForm | GeminiForm):
            speaker = speaker._replace(model=form.model)
        if isinstance(form, PolicyForm) and form.amount is not None:
            speaker = speaker._replace(amount=self._asked(form.amount, commons, (*path, "amount")))
        if self.answers is not None and form.role != "shadow":
            return self._replaced(speaker, form, commons, self.answers)
        if isinstance(form, PolicyForm):
            problem = _policy_problem(form.policy, form.amount, form.actors, commons)
            if problem is not None:
                raise self.document.bad((*path, problem[0]), problem[1])
            return speaker._replace(policy=form.policy)
        if isinstance(form, GeminiForm):
            return speaker
        key = "cassette" if isinstance(form, CassetteForm) else "file"
        file, found = self.existing(form.cassette if isinstance(form, CassetteForm) else form.file, (*path, key))
        return speaker._replace(file=file, path=found)

    def _asked(self, amount: int | Decimal, commons: Commons | None, path: YamlPath) -> int | None:
        """What `take` asks in minor units; None where there is no commons to ask it of."""
        return None if commons is None else self.minor(amount, commons.resource, path)

    def _replaced(self, speaker: Speaker, form: AnyProposerForm, commons: Commons | None, spec: str) -> Speaker:
        """The proposer with the answers of `--proposer`; its prompt, model and amount stay."""
        label = f"--proposer {spec}"
        kind, _, rest = spec.partition(":")
        match kind if rest else "":
            case "policy":
                try:
                    known(rest, POLICIES, "policy", ())
                except BadInput as error:
                    raise BadInput(f"{label}: {error}") from None
                amount = speaker.amount if rest == "take" else None
                problem = _policy_problem(rest, amount, form.actors, commons)
                if problem is not None:
                    raise BadInput(f"{label}: {problem[1]}")
                return speaker._replace(kind="policy", policy=rest, amount=amount)
            case "fixture" | "cassette":
                path = Path(rest)
                if not path.is_file():
                    raise BadInput(f"{label}: found no file {rest}; expected one")
                file = self.kept(rest, path)
                return speaker._replace(kind="fixture" if kind == "fixture" else "cassette", file=file, path=path)
            case "gemini":
                return speaker._replace(kind="gemini", model=rest)
        raise BadInput(f"{label}: expected policy:NAME, fixture:PATH, cassette:PATH or gemini:MODEL")

    def expectation(self, i: int) -> Expectation:
        """One expectation; a metric of a resource knows of which."""
        form, path = self.form.expect[i], ("expect", i)
        self.known(form.metric, METRICS, "metric", (*path, "metric"))
        resource = form.resource
        if resource is not None:
            self.known(resource, self.resources, "resource", (*path, "resource"))
            if form.metric in RUN_METRICS:
                text = f"found {resource}, but {form.metric} is of the run; expected no resource"
                raise self.document.bad((*path, "resource"), text)
        elif form.metric in RESOURCE_METRICS:
            if len(self.resources) > 1:
                text = f"found no resource; expected one, since {form.metric} is of one: {', '.join(self.resources)}"
                raise self.document.bad(path, text)
            resource = next(iter(self.resources))
        if form.equals is None and form.at_least is None and form.at_most is None:
            raise self.document.bad(path, "found no bound; expected one of: at_least, at_most, equals")
        if form.equals is not None and (form.at_least is not None or form.at_most is not None):
            raise self.document.bad((*path, "equals"), "found equals and another bound; expected equals alone")
        return Expectation(form.metric, resource, form.at_least, form.at_most, form.equals)


def _policy_problem(
    policy: str, amount: object, actors: object, commons: Commons | None
) -> tuple[Literal["policy", "amount"], str] | None:
    """What a policy lacks, and at which key to say so."""
    if policy in COMMONS_POLICIES:
        if commons is None:
            return "policy", f"found {policy}, but no commons; expected commons: {{actor, resource}} in the scenario"
        if actors is None:
            return "policy", f"found {policy} without actors; expected actors: who takes from the commons"
    if policy == "take" and amount is None:
        return "policy", "found take without an amount; expected amount: what it asks of the commons"
    if policy != "take" and amount is not None:
        return "amount", f"found an amount with {policy}; expected one with take alone"
    return None
