"""A scenario, checked and expanded: frozen values and what they answer; nothing is checked, and nothing runs here.

How a scenario is written is in `form`, and the way from there to here in `loading`. Of the form only `Decisions` is
used, as a type: whoever imports this module loads no pydantic.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from gridgov import amounts
from gridgov.errors import BadInput
from gridgov.journal import constraints_payload
from gridgov.model import Constraints, Resource
from sim.strict_yaml import Document
from sim.strict_yaml import Path as YamlPath

if TYPE_CHECKING:
    from sim.form import Decisions
    from sim.profiles import Ints


class Member(NamedTuple):
    """An actor; `n` is its number where a template made it."""

    id: str
    type: str
    n: int | None


class Profile(NamedTuple):
    """Columns of a data file: one for each actor of the flow, in their order (for a price: one).

    `file` is the path as written; `per_unit` is how many minor units (of a price: millionths) 1 in the file is; `key`
    is where the scenario says so.
    """

    file: str
    path: Path
    columns: tuple[str, ...]
    per_unit: Fraction
    rounded: bool
    key: YamlPath


class Noise(NamedTuple):
    """What is added to an amount: `width` is the standard deviation (normal) or half the range, in minor units."""

    kind: Literal["normal", "uniform"]
    width: Fraction


class Flow(NamedTuple):
    """A flow: what each of `actors` produces or consumes (`amount` or `profile`), or how it grows (`factor`, `cap`).

    Amounts are minor units. It runs in epochs `first` to `until` (inclusive, within the horizon), every `every`.
    """

    name: str
    kind: Literal["produce", "consume", "grow"]
    resource: str
    actors: tuple[str, ...]
    first: int
    until: int
    every: int
    amount: int | None = None
    profile: Profile | None = None
    noise: Noise | None = None
    factor: Fraction | None = None
    cap: int | None = None

    def active(self, epoch: int) -> bool:
        """Whether it runs in this epoch."""
        return self.first <= epoch <= self.until and (epoch - self.first) % self.every == 0


class Price(NamedTuple):
    """The price of a unit in millionths of the currency: the same in every epoch, or a profile."""

    amount: int | None
    profile: Profile | None


class Scaling(NamedTuple):
    """A flow that is multiplied by `by` in epochs `first` to `until`, inclusive."""

    flow: str
    first: int
    until: int
    by: Fraction


class Commons(NamedTuple):
    """A shared pool; below `collapse_below` minor units at a close it has collapsed (None: it never does)."""

    actor: str
    resource: str
    collapse_below: int | None


class Speaker(NamedTuple):
    """A proposer of the scenario: who it is, for whom it speaks, and how it answers.

    `group` is its name before actors were expanded. `mandate` None is everyone. `amount` is minor units of the commons
    (policy take). `file` is a fixture or a cassette as written, `path` where it is. `model` None is the default one.
    """

    name: str
    group: str
    kind: Literal["policy", "cassette", "fixture", "gemini"]
    role: Literal["active", "shadow"]
    actor: str | None
    mandate: tuple[str, ...] | None
    proposals_per_epoch: int
    history: int
    on_unavailable: Literal["stop", "record"]
    policy: str | None
    amount: int | None
    file: str | None
    path: Path | None
    prompt: str
    model: str | None


class Expectation(NamedTuple):
    """What a metric must come to; `resource` is None for a metric of the run."""

    metric: str
    resource: str | None
    at_least: int | Decimal | None
    at_most: int | Decimal | None
    equals: int | Decimal | None


class Since(NamedTuple):
    """Where a plan begins that is made in a fork: after the close of an epoch, with what each actor has by then.

    `balances` are minor units by (actor, resource); `hindered` says why nobody could know what comes of a plan, or "".
    """

    epoch: int
    balances: Mapping[tuple[str, str], int]
    hindered: str


@dataclass(frozen=True, eq=False)
class Scenario:
    """A scenario that was checked and expanded: plain data, all amounts in minor units, all times in microseconds.

    `source` is the YAML as written and `overrides` the `--set` that were applied to it; `files` are all the files that
    it reads, by the path as written. `constraints` holds (first epoch, constraints) in order, the first from epoch 1.
    `since` is where policy optimal begins to plan, if not at the beginning.
    """

    file: str
    source: str
    overrides: tuple[str, ...]
    name: str
    description: str
    seed: int
    epochs: int
    start_at: int
    length: int
    first_row: int
    resources: tuple[Resource, ...]
    actors: tuple[Member, ...]
    opening: tuple[tuple[str, str, int], ...]
    storage: dict[tuple[str, str], int]
    constraints: tuple[tuple[int, Constraints], ...]
    flows: tuple[Flow, ...]
    prices: dict[str, Price]
    scalings: tuple[Scaling, ...]
    decisions: Decisions
    holds: Literal["approve", "reject", "expire"]
    commons: Commons | None
    speakers: tuple[Speaker, ...]
    expect: tuple[Expectation, ...]
    files: dict[str, Path]
    document: Document = field(repr=False)
    since: Since | None = None

    def resource(self, name: str) -> Resource:
        """The resource of this name, which must be one of the scenario's."""
        return next(resource for resource in self.resources if resource.name == name)

    def constraints_at(self, epoch: int) -> Constraints:
        """The constraints in force in this epoch; the same object for as long as nothing changes."""
        return self.constraints[bisect_right(self.constraints, epoch, key=lambda each: each[0]) - 1][1]

    def scale_at(self, flow: str, epoch: int) -> Fraction:
        """What this flow is multiplied by in this epoch: the product of all that scales it then."""
        by = Fraction(1)
        for each in self.scalings:
            if each.flow == flow and each.first <= epoch <= each.until:
                by *= each.by
        return by

    @cached_property
    def _series(self) -> tuple[dict[str, tuple[Ints, ...]], dict[str, Ints]]:
        """The profiles of flows and of prices; every file is read once for all its columns."""
        from sim import profiles

        flows = {flow.name: flow.profile for flow in self.flows if flow.profile is not None}
        prices = {name: price.profile for name, price in self.prices.items() if price.profile is not None}
        columns: dict[Path, set[str]] = {}
        for profile in (*flows.values(), *prices.values()):
            columns.setdefault(profile.path, set()).update(profile.columns)
        tables: dict[Path, profiles.Table] = {}

        def series(profile: Profile, signed: bool) -> tuple[Ints, ...]:
            try:
                if profile.path not in tables:
                    wanted = columns[profile.path]
                    tables[profile.path] = profiles.read(profile.path, wanted, self.epochs, self.first_row)
                table = tables[profile.path]
                return tuple(
                    table.column(column).minor(profile.per_unit, rounded=profile.rounded, signed=signed)
                    for column in profile.columns
                )
            except BadInput as error:
                raise self.document.bad(profile.key, str(error)) from None

        found = {name: series(profile, signed=False) for name, profile in flows.items()}
        return found, {name: series(profile, signed=True)[0] for name, profile in prices.items()}

    def flow_series(self, flow: str) -> tuple[Ints, ...]:
        """The profile of a flow that has one: for each of its actors an int64 array of minor units, shape (epochs,).

        Raises:
            BadInput: Where the file is short, or a cell of it is no fitting amount.
        """
        return self._series[0][flow]

    def price_series(self) -> dict[str, Ints]:
        """The prices: for each resource that has one an int64 array of millionths, shape (epochs,). Raises BadInput."""
        if not self.prices:
            return {}
        import numpy as np

        found = self._series[1]
        return {
            name: found[name] if price.amount is None else np.full(self.epochs, price.amount, np.int64)
            for name, price in self.prices.items()
        }

    def check_files(self) -> None:
        """Reads all profiles to the horizon. Raises BadInput where a run would: short files, cells that do not fit."""
        for flow in self.flows:
            if flow.profile is not None:
                self.flow_series(flow.name)
        self.price_series()

    def content_digest(self, file: str) -> str:
        """`sha256:<hex>` of the content of one of `files`, by its path as written."""
        return "sha256:" + hashlib.sha256(self.contents[file]).hexdigest()

    @cached_property
    def contents(self) -> dict[str, bytes]:
        """What is in each of `files`, by its path as written, as it was when first asked for. Raises BadInput."""
        found = {}
        for name, path in self.files.items():
            try:
                found[name] = path.read_bytes()
            except OSError as error:
                raise BadInput(f"{path}: {error.strerror or error}; expected a file to read") from None
        return found

    def resolved(self) -> dict[str, Any]:
        """What determines the run as plain JSON values: no name, description, proposers, expectations or paths.

        Templates are expanded, amounts are minor units, other decimals plain text, files their content digests:
        whatever means the same resolves to the same, however it was written.
        """
        return {
            "seed": self.seed,
            "epochs": self.epochs,
            "start": self.start_at,
            "epoch_length": self.length,
            **({"first_row": self.first_row} if self.first_row else {}),
            "resources": [resource._asdict() for resource in self.resources],
            "actors": [{"id": actor.id, "type": actor.type} for actor in self.actors],
            "opening": [list(line) for line in self.opening],
            "storage": sorted([actor, resource, amount] for (actor, resource), amount in self.storage.items()),
            "constraints": [{"epoch": first, **constraints_payload(each)} for first, each in self.constraints],
            "flows": [self._flow(flow) for flow in self.flows],
            "prices": {
                name: price.amount if price.profile is None else self._profile(price.profile)
                for name, price in self.prices.items()
            },
            "scalings": [{**each._asdict(), "by": _plain(each.by)} for each in self.scalings],
            "decisions": self.decisions.model_dump(),
            "holds": self.holds,
            "commons": self.commons._asdict() if self.commons else None,
        }

    def _flow(self, flow: Flow) -> dict[str, Any]:
        noise = {"kind": flow.noise.kind, "width": _plain(flow.noise.width)} if flow.noise else None
        profile = self._profile(flow.profile) if flow.profile else None
        factor = None if flow.factor is None else _plain(flow.factor)
        return {**flow._asdict(), "actors": list(flow.actors), "noise": noise, "profile": profile, "factor": factor}

    def _profile(self, profile: Profile) -> dict[str, Any]:
        return {
            "file": self.content_digest(profile.file),
            "columns": list(profile.columns),
            "per_unit": str(profile.per_unit),
            "rounded": profile.rounded,
        }


def _plain(value: Fraction) -> str:
    """A finite decimal as canonical text."""
    places = next(places for places in range(64) if 10**places % value.denominator == 0)
    return amounts.plain(int(value * 10**places), places)
