"""Random model values, built nowhere else. Worlds and amounts are small, so that limits are often met."""

from decimal import Decimal

from hypothesis import strategies as st

from gridgov.journal import (
    Close,
    ConstraintsChange,
    Control,
    Decision,
    Flow,
    Genesis,
    Reading,
    Registration,
    Settlement,
)
from gridgov.model import (
    Actor,
    AutoPause,
    Code,
    Constraints,
    Kind,
    LedgerEntry,
    Limit,
    Malformed,
    Outcome,
    Resource,
    Transfer,
    Unavailable,
    Violation,
)

SCALES = {"energy": 0, "water": 1, "credits": 3}
"""The resources of the small worlds, and their decimal places."""

RESOURCES = {name: Resource(name, f"unit of {name}", scale) for name, scale in SCALES.items()}

FOUNDERS = ("actor-1", "actor-2", "pool")
"""Who is there from the start; `LATER` may join, `nobody` never does."""

LATER = "actor-3"

PROPOSERS = ("planner", "self", "stranger")

RICH = 10**15 - 30
"""An opening balance, in minor units, to which little can be added."""

NASTY = (
    "",
    "\x00\x01\x1f\x7f",
    'a"b\\c/d',
    "\b\f\n\r\t",
    "\u2028\u2029",
    "energía ⚡ 🧑\u200d🔧",
    "ברוך\u202eabc",
    "\ufeff\uffff",
    "e\u0301 é",
    '","outcome":"executed"',
)
"""Texts that break encoders."""


def units(minor, scale):
    """Minor units as an exact Decimal in units."""
    return Decimal(minor).scaleb(-scale)


# --- small worlds -----------------------------------------------------------------------------------------------------


@st.composite
def limits(draw, least, most, actors=FOUNDERS):
    """A limit in the form of a scenario, in units: a number, or by resource and actor."""
    minor = st.integers(least, most)
    if draw(st.booleans()):
        return draw(minor)
    found = {"default": draw(minor)} if draw(st.booleans()) else {}
    found |= {r: units(draw(minor), scale) for r, scale in SCALES.items() if draw(st.booleans())}
    if actors and draw(st.booleans()):
        actor, resource = draw(st.sampled_from(actors)), draw(st.sampled_from(sorted(SCALES)))
        found["actors"] = {actor: {resource: units(draw(minor), SCALES[resource])}}
    return found


auto_pauses = st.fixed_dictionaries(
    {},
    optional={
        "refused_in_a_row": st.integers(1, 4),
        "unavailable_in_a_row": st.integers(1, 3),
        "moved_per_epoch": limits(30, 150, ()),
    },
)

constraints_in_units = st.fixed_dictionaries(
    {"hold_above": limits(5, 30), "hold_epochs": st.integers(1, 3)},
    optional={
        "max_transfer": limits(12, 40),
        "min_balance": limits(0, 15),
        "epoch_quota": limits(15, 60),
        "max_transfers_per_proposal": st.sampled_from((3, 3, 2, 0)),
        "auto_pause": auto_pauses,
    },
)
"""Constraints in the form of a scenario."""

ACCOUNTS = tuple((actor, resource) for actor in FOUNDERS for resource in SCALES)

openings = st.tuples(
    *(st.one_of(st.integers(40, 100), st.integers(0, 60), st.sampled_from((60, 0, RICH, None))) for _ in ACCOUNTS)
).map(lambda found: tuple((*where, n) for where, n in zip(ACCOUNTS, found, strict=True) if n is not None))
"""Opening balances in minor units, some not declared."""

ODD_AMOUNTS = (
    0,
    -3,
    10**15 - 1,
    10**15,
    10**18,
    Decimal("0.5"),
    Decimal("-0.0001"),
    Decimal("0.00001"),
    Decimal("1E-400"),
    Decimal("-1E+50"),
    Decimal("1E+50"),
    Decimal("100000000000000.0000000001"),
)

PAIRS = tuple((one, other) for one in FOUNDERS for other in FOUNDERS if one != other)

ODD_PAIRS = (
    *(pair for odd in (LATER, "nobody", "grid") for pair in (("actor-1", odd), (odd, "actor-2"), (odd, odd))),
    ("pool", "pool"),
    ("nobody", "grid"),
    ("grid", LATER),
)

pairs = st.one_of(*[st.sampled_from(PAIRS)] * 4, st.sampled_from(ODD_PAIRS))
few = st.one_of(st.integers(8, 35), st.integers(1, 12), st.integers(1, 60))


def _ask(pair, resource, amount):
    return *pair, resource, amount


asks = st.builds(
    _ask,
    pairs,
    st.sampled_from(tuple(SCALES) * 5 + ("gold",)),
    st.one_of(*[few] * 4, st.sampled_from(ODD_AMOUNTS)),
)
"""From, to, resource, amount: an int of minor units or a Decimal in units, fit or not."""

plain_asks = st.builds(_ask, st.sampled_from(PAIRS), st.sampled_from(tuple(SCALES)), few)
"""Asks that keep to known actors, resources and amounts."""


def requests(most):
    """What a flow asks for: actor, resource, minor units."""
    return st.tuples(st.sampled_from(FOUNDERS), st.sampled_from(tuple(SCALES)), st.integers(0, most))


freezings = st.dictionaries(
    st.sampled_from((*FOUNDERS, LATER, "nobody")), st.sampled_from((False, False, True)), max_size=2
)

mandates = st.dictionaries(
    st.sampled_from(PROPOSERS),
    st.one_of(st.none(), st.lists(st.sampled_from((*FOUNDERS, LATER)), unique=True, max_size=3).map(tuple)),
    max_size=2,
)

faults = st.one_of(
    st.builds(Malformed, st.sampled_from(("not_pure_json", "truncated")), st.just("?"), st.binary(max_size=1)),
    st.builds(Unavailable, st.sampled_from(("quota", "transport")), st.sampled_from(("429", ""))),
)

# --- values for encoders ----------------------------------------------------------------------------------------------

texts = st.one_of(st.text(max_size=12), st.sampled_from(NASTY))
minors = st.integers(0, 10**15 - 1)
decimals = st.decimals(allow_nan=False, allow_infinity=False)
amounts = st.one_of(minors, st.integers(), decimals)
times = st.integers(0, 2**53)

any_limits = st.builds(
    Limit,
    st.dictionaries(texts, minors, max_size=3),
    st.dictionaries(texts, st.dictionaries(texts, minors, max_size=2), max_size=2),
)

any_constraints = st.builds(
    Constraints,
    max_transfer=st.none() | any_limits,
    min_balance=st.none() | any_limits,
    epoch_quota=st.none() | any_limits,
    hold_above=st.none() | any_limits,
    max_transfers_per_proposal=st.none() | st.integers(0, 100),
    hold_epochs=st.integers(1, 100),
    auto_pause=st.none()
    | st.builds(
        AutoPause,
        st.none() | st.integers(1, 9),
        st.none() | st.integers(1, 9),
        st.none() | st.dictionaries(texts, minors, max_size=2),
    ),
)

transfers = st.builds(Transfer, texts, texts, texts, amounts)

violations = st.builds(
    Violation,
    st.sampled_from(Code),
    texts,
    st.none() | st.integers() | texts,
    st.none() | st.integers() | texts,
    st.none() | texts,
)


def tuples_of(values, **sizes):
    return st.lists(values, **sizes).map(tuple)


@st.composite
def decisions(draw):
    """A decision that says anything at all; its id is a UUID and its input hex, as the model promises."""
    asked = draw(tuples_of(transfers, max_size=3))
    granted = draw(st.none() | st.tuples(*(amounts for _ in asked)))
    return Decision(
        str(draw(st.uuids())),
        draw(texts),
        draw(st.integers(1, 9)),
        draw(st.binary(min_size=32, max_size=32)).hex(),
        asked,
        draw(texts),
        draw(st.sampled_from(Outcome)),
        draw(tuples_of(violations, max_size=2)),
        draw(tuples_of(st.integers(1), max_size=3)),
        granted,
        draw(st.none() | st.integers(0)),
        draw(st.booleans()),
        draw(texts),
        draw(texts),
    )


scenarios = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)

payloads = st.one_of(
    st.builds(
        Genesis,
        st.integers(0, 2**64),
        times,
        st.integers(1),
        tuples_of(st.builds(Actor, texts, texts), max_size=3),
        tuples_of(st.builds(Resource, texts, texts, st.integers(0, 6)), max_size=3),
        any_constraints,
        tuples_of(st.tuples(texts, texts, minors), max_size=3),
        st.dictionaries(texts, scenarios, max_size=3),
    ),
    st.builds(
        Registration,
        tuples_of(st.builds(Actor, texts, texts), max_size=2),
        st.dictionaries(texts, st.booleans(), max_size=2),
        st.dictionaries(texts, st.none() | tuples_of(texts, max_size=2), max_size=2),
        texts,
        texts,
    ),
    st.builds(ConstraintsChange, any_constraints, texts, texts),
    st.builds(
        Flow,
        st.sampled_from([*map(str, Kind), "need"]),
        texts,
        tuples_of(st.builds(Reading, texts, texts, minors, minors, st.none() | st.integers(1)), max_size=3),
    ),
    decisions(),
    st.builds(
        Settlement,
        st.uuids().map(str),
        st.sampled_from(("approve", "reject", "expire")),
        st.sampled_from(Outcome),
        tuples_of(violations, max_size=2),
        tuples_of(st.integers(1), max_size=2),
        texts,
        texts,
    ),
    st.builds(Close, st.integers(0), st.dictionaries(texts, st.integers(), max_size=3), st.booleans()),
    st.builds(Control, st.booleans(), texts, texts),
)
"""Any payload of a journal record."""


@st.composite
def ledgers(draw, most=10**15 - 1):
    """Entries of a ledger in order, over a few epochs, with the actors and resources they speak of."""
    actors, resources = ("grid", "a", "b", "c"), ("energy", "water")
    drawn = draw(
        st.lists(
            st.tuples(
                st.sampled_from(actors),
                st.sampled_from(actors),
                st.sampled_from(resources),
                st.integers(1, most),
                st.integers(0, 4),
            ),
            max_size=40,
        )
    )
    rows = sorted(drawn, key=lambda row: row[4])
    entries = [
        LedgerEntry(i, None, giver, taker, resource, amount, epoch, i, epoch, Kind.TRANSFER)
        for i, (giver, taker, resource, amount, epoch) in enumerate(rows, start=1)
    ]
    return actors, resources, entries
