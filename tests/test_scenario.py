"""The scenario form: every kind of bad input ends in one line that says where and what, and good ones are expanded."""

import csv
import gzip
import json
import pickle
import subprocess
import sys
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridgov.errors import BadInput
from gridgov.journal import canonical
from gridgov.model import AutoPause, Limit, Resource
from sim import strict_yaml
from sim.form import SEED, json_schema
from sim.loading import load, loads
from sim.scenario import Commons, Expectation, Member, Noise, Price, Scaling, Speaker

ROOT = Path(__file__).resolve().parent.parent
SCENARIOS = ROOT / "scenarios"
DATA = SCENARIOS / "data/citylearn_2022_17_homes.csv.gz"
SCHEMA = SCENARIOS / "scenario.schema.json"

BASE = """\
name: week
seed: 3
epochs: 24
start: "2016-07-31T23:00:00Z"
epoch_length: 1h
resources:
  energy:  {unit: kWh, scale: 3}
  credits: {unit: credit, scale: 2}
constraints:
  max_transfer: {energy: 5, credits: 50}
  min_balance: 0
actors:
  - {id: pool, type: plant, balances: {energy: 40}}
  - {id: "home-{n}", count: 2, balances: {energy: 1.5, credits: 100}, storage: {energy: 6.4}}
flows:
  - name: pv
    kind: produce
    actors: "home-{n}"
    resource: energy
    profile: {file: data/homes.csv, column: "pv_{n}_wh", unit: Wh}
  - {name: load, kind: consume, actors: [home-1, home-2], resource: energy, amount: 2, noise: {normal: 0.3}}
  - {name: spawn, kind: grow, actors: pool, resource: energy, factor: 2, cap: 100, every: 3}
prices:
  energy: {profile: {file: data/homes.csv, column: price}}
changes:
  - {epoch: 4, set: {constraints.max_transfer.energy: 0.5}}
  - {epoch: 6, until: 9, scale: {flow: pv, by: 0.3}}
decisions: {order: simultaneous, allocation: proportional}
commons: {actor: pool, resource: energy, collapse_below: 5}
proposers:
  - {kind: policy, policy: greedy}
  - {name: taker, kind: policy, policy: take, amount: 2, actors: "home-{n}", mandate: [self, pool]}
  - {kind: fixture, file: data/fixture.jsonl, role: shadow}
expect:
  - {metric: self_sufficiency, resource: energy, at_least: 0.4}
"""

# The example of the design, section 8.
COMMUNITY = """\
name: community-week
description: 17 real homes with rooftop PV and a battery share their surplus for a week
seed: 1
epochs: 168
start: "2016-07-31T23:00:00Z"          # local time of the data, written as Z
epoch_length: 1h
resources:
  energy:  {unit: kWh, scale: 3}
  credits: {unit: credit, scale: 2}
constraints:
  max_transfer: {energy: 5, credits: 50}
  min_balance: 0
actors:
  - {id: "home-{n}", count: 17, type: node, balances: {energy: 0, credits: 100}, storage: {energy: 6.4}}
flows:
  - {name: pv,   kind: produce, actors: "home-{n}", resource: energy,
     profile: {file: data/citylearn_2022_17_homes.csv.gz, column: "pv_{n}_wh", unit: Wh}}
  - {name: load, kind: consume, actors: "home-{n}", resource: energy,
     profile: {file: data/citylearn_2022_17_homes.csv.gz, column: "load_{n}_wh", unit: Wh}}
  # amount: 40 | noise: {normal: 3} | from, until (inclusive), every: epochs | kind: grow {factor, cap}
prices:
  energy: {profile: {file: data/citylearn_2022_17_homes.csv.gz, column: price_usd_per_kwh}}
changes:
  - {epoch: 100, set: {constraints.max_transfer.energy: 0.5}}
  - {epoch: 120, until: 131, scale: {flow: pv, by: 0.3}}
decisions: {order: sequential}          # or simultaneous | random; allocation: refuse | proportional | random
proposers:
  - {name: planner, kind: policy, policy: greedy}
expect:
  - {metric: self_sufficiency, resource: energy, at_least: 0.4}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the data that `BASE` reads, as the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    rows = "".join(f"{hour},{hour * 7},{hour * 3},0.2{hour}\n" for hour in range(24))
    (tmp_path / "data/homes.csv").write_text("hour,pv_1_wh,pv_2_wh,price\n" + rows)
    (tmp_path / "data/fixture.jsonl").write_text("")
    return tmp_path


def loaded(folder, text=BASE, *overrides, **options):
    (folder / "week.yaml").write_text(text)
    return load("week.yaml", overrides, **options)


def refusal(folder, text=BASE, *overrides, **options):
    with pytest.raises(BadInput) as caught:
        loaded(folder, text, *overrides, **options).check_files()
    message = str(caught.value)
    assert "\n" not in message
    return message


def replaced(old, new, text=BASE):
    assert old in text
    return text.replace(old, new, 1)


# --- bad input --------------------------------------------------------------------------------------------------------

REFUSED = [
    (
        "2016-07-31T23:00:00Z",
        "2016-07-31T23:00:00+01:00",
        "4: start: '2016-07-31T23:00:00+01:00' is no time; write it as 2025-02-28T12:00:00Z",
    ),
    ("epochs: 24", "epoch: 24", "3: epoch: unknown key 'epoch'; did you mean 'epochs'?"),
    (
        "epochs: 24\n",
        "",
        "1: epochs: found nothing; expected epochs: How many epochs there are; they are numbered from 1",
    ),
    ("epochs: 24", "epochs: many", "3: epochs: found 'many'; expected a whole number from 1 to 10000000"),
    ("epochs: 24", "epochs: 0", "3: epochs: found 0; expected a whole number from 1 to 10000000"),
    ("epochs: 24", "epochs: 1e3", "3: epochs: found 1E+3; expected a whole number from 1 to 10000000"),
    ("seed: 3", "seed: -1", "2: seed: found -1; expected a whole number from 0 to 9007199254740991"),
    ("name: week", "name: my week", "1: name: found 'my week'; expected a name: letters, digits, - and _, at most 64"),
    (
        'start: "2016-07-31T23:00:00Z"',
        "start: yesterday",
        "4: start: 'yesterday' is no time; write it as 2025-02-28T12:00:00Z",
    ),
    (
        'start: "2016-07-31T23:00:00Z"',
        "start: 2016-07-31",
        "4: start: '2016-07-31' is no time; write it as 2025-02-28T12:00:00Z",
    ),
    (
        "epoch_length: 1h",
        "epoch_length: 1x",
        "5: epoch_length: found '1x'; expected a length such as 30s, 15m, 1h, 1d or 1w",
    ),
    (
        "epoch_length: 1h",
        "epoch_length: 60",
        "5: epoch_length: found 60; expected a length such as 30s, 15m, 1h, 1d or 1w",
    ),
    (
        "epoch_length: 1h",
        "epoch_length: 999999w",
        "3: epochs: found an end beyond the year 9999; expected fewer or shorter epochs",
    ),
    ("scale: 3", "scale: 7", "7: resources.energy.scale: found 7; expected a whole number from 0 to 6"),
    ("scale: 2", "scal: 2", "8: resources.credits.scal: unknown key 'scal'; did you mean 'scale'?"),
    ("credits: {unit: credit, scale: 2}", "credits: 3", "8: resources.credits: found 3; expected a mapping"),
    (
        "  energy:  {",
        "  default:  {",
        "7: resources.default: found the word default, which limits use; expected another",
    ),
    (
        "max_transfer:",
        "max_tranfer:",
        "10: constraints.max_tranfer: unknown constraint 'max_tranfer'; did you mean 'max_transfer'?",
    ),
    (
        "credits: 50",
        "credit: 50",
        "10: constraints.max_transfer.credit: unknown resource 'credit'; did you mean 'credits'?",
    ),
    (
        "credits: 50",
        "credits: 50.001",
        "10: constraints.max_transfer.credits: 50.001 has more decimals than credits (scale 2); "
        "round it, or raise the scale",
    ),
    ("credits: 50", "credits: -1", "10: constraints.max_transfer.credits: -1 is below 0; amounts are 0 or more"),
    (
        "credits: 50",
        "credits: 1e999",
        "10: constraints.max_transfer.credits: 1E999 credit is out of range: 15 digits at most",
    ),
    ("credits: 50", "credits: .nan", "10: constraints.max_transfer.credits: expected a number of credit, not '.nan'"),
    (
        "min_balance: 0",
        "min_balance: {actors: {home-3: {energy: 1}}}",
        "11: constraints.min_balance.actors.home-3: unknown actor 'home-3'; did you mean 'home-2'?",
    ),
    ("min_balance: 0", "hold_epochs: 0", "11: constraints.hold_epochs: expected a whole number from 1, not 0"),
    ("id: pool", "id: grid", "13: actors.grid.id: found grid, which is reserved; expected another id"),
    ("id: pool", "id: self", "13: actors.self.id: found self, which is reserved; expected another id"),
    ("id: pool", "id: home-2", "14: actors.home-{n}.id: found a second home-2; expected every id once"),
    (
        "id: pool",
        "id: 'häuser'",
        "13: actors.häuser.id: found 'häuser'; "
        "expected the id of an actor, or a template such as home-{n}: letters, digits, - _ . and :, at most 64",
    ),
    (
        "id: pool",
        "id: null",
        "13: actors.0.id: found null; "
        "expected the id of an actor, or a template such as home-{n}: letters, digits, - _ . and :, at most 64",
    ),
    ("count: 2, ", "", "14: actors.home-{n}.id: found home-{n} without a count; expected count: how many there are"),
    ("count: 2", "count: 0", "14: actors.home-{n}.count: found 0; expected a whole number from 1 to 100000"),
    (
        '"home-{n}", count',
        '"home", count',
        "14: actors.home.count: found a count, but no {n} in the id; expected both or none",
    ),
    ("type: plant", "type: boundary", "13: actors.pool.type: found boundary; expected any other word"),
    (
        "energy: 1.5",
        "energy: 1.5005",
        "14: actors.home-{n}.balances.energy: 1.5005 has more decimals than energy (scale 3); "
        "round it, or raise the scale",
    ),
    ("energy: 1.5", "energy: -1", "14: actors.home-{n}.balances.energy: found -1; expected 0 or more"),
    (
        "energy: 1.5",
        "energy: 1000000000000",
        "14: actors.home-{n}.balances.energy: 1000000000000 kWh is out of range: 15 digits at most",
    ),
    ("energy: 1.5", "energy: NaN", "14: actors.home-{n}.balances.energy: found 'NaN'; expected a number"),
    ("energy: 1.5", "energy: '3'", "14: actors.home-{n}.balances.energy: found '3'; expected a number"),
    ("energy: 1.5", "energy: true", "14: actors.home-{n}.balances.energy: found true; expected a number"),
    (
        "energy: 1.5",
        "enrgy: 1.5",
        "14: actors.home-{n}.balances.enrgy: unknown resource 'enrgy'; did you mean 'energy'?",
    ),
    (
        "energy: 6.4",
        "water: 6.4",
        "14: actors.home-{n}.storage.water: unknown resource 'water'; expected one of: energy, credits",
    ),
    ("kind: produce", "kind: prodce", "17: flows.pv.kind: unknown kind 'prodce'; did you mean 'produce'?"),
    ("    kind: produce\n", "", "16: flows.pv: found no kind; expected one of: produce, grow, consume"),
    (
        '    actors: "home-{n}"',
        '    actors: "house-{n}"',
        "18: flows.pv.actors: found no actor that house-{n} matches; expected some: there are home-{n}, pool",
    ),
    ("[home-1, home-2]", "[home-1, home-7]", "21: flows.load.actors.1: unknown actor 'home-7'; did you mean 'home-2'?"),
    (
        "[home-1, home-2]",
        "[home-1, 'home-{n}']",
        "21: flows.load.actors.1: found home-1 twice; expected each actor once",
    ),
    ("[home-1, home-2]", "[]", "21: flows.load.actors: found an empty list; expected at least one actor"),
    ("name: load", "name: pv", "21: flows.pv.name: found 'pv' again (first on line 16); expected another name"),
    (
        "resource: energy, amount: 2",
        "resource: enrgy, amount: 2",
        "21: flows.load.resource: unknown resource 'enrgy'; did you mean 'energy'?",
    ),
    ("amount: 2, noise", "noise", "21: flows.load: found neither; expected one of: amount, profile"),
    (
        "    profile: {file",
        "    amount: 2\n    profile: {file",
        "16: flows.pv: found amount and profile; expected one of: amount, profile",
    ),
    (
        "amount: 2, noise",
        "amount: 2.00001, noise",
        "21: flows.load.amount: 2.00001 has more decimals than energy (scale 3); round it, or raise the scale",
    ),
    ("normal: 0.3", "normal: -0.3", "21: flows.load.noise.normal: found -0.3; expected 0 or more"),
    (
        "normal: 0.3",
        "normal: 0.3, uniform: 2",
        "21: flows.load.noise: found normal and uniform; expected one of: normal, uniform",
    ),
    ("{normal: 0.3}", "{}", "21: flows.load.noise: found neither; expected one of: normal, uniform"),
    ("{normal: 0.3}", "3", "21: flows.load.noise: found 3; expected a mapping"),
    ("factor: 2", "factor: 0.5", "22: flows.spawn.factor: found 0.5; expected 1 or more"),
    (
        "factor: 2, cap",
        "cap",
        "22: flows.spawn.factor: found nothing; expected factor: What the balance is multiplied by, 1 or more",
    ),
    ("every: 3", "every: 0", "22: flows.spawn.every: found 0; expected a whole number from 1 to 10000000"),
    ("every: 3", "from: 5, until: 4", "22: flows.spawn.until: found 4; expected 5 or later, where it begins"),
    (
        "every: 3",
        "from: 25",
        "22: flows.spawn.from: found 25, beyond the last epoch, 24; expected an epoch of the scenario",
    ),
    (
        'data/homes.csv, column: "pv',
        'data/house.csv, column: "pv',
        "20: flows.pv.profile.file: found no file data/house.csv; expected one (relative to the scenario's file)",
    ),
    (
        "pv_{n}_wh",
        "pw_{n}_wh",
        "20: flows.pv.profile.column: unknown column 'pw_1_wh'; did you mean 'pv_1_wh'? (in data/homes.csv)",
    ),
    (
        "pv_{n}_wh",
        "zzz",
        "20: flows.pv.profile.column: unknown column 'zzz'; "
        "expected one of: hour, pv_1_wh, pv_2_wh, price (in data/homes.csv)",
    ),
    (
        '    actors: "home-{n}"',
        "    actors: pool",
        "20: flows.pv.profile.column: found pv_{n}_wh, but pool has no number; expected actors from a template",
    ),
    (
        "unit: Wh",
        "unit: m3",
        "20: flows.pv.profile.unit: found 'm3', which does not convert into kWh; "
        "expected one of: Wh, kWh, MWh, GWh, J, kJ, MJ, GJ",
    ),
    ("unit: Wh", "unit: Wh, round: up", "20: flows.pv.profile.round: unknown round 'up'; expected one of: half_even"),
    (
        "unit: Wh",
        "unit: Wh, scale: 3",
        "20: flows.pv.profile.scale: unknown key 'scale'; expected one of: file, column, unit, round",
    ),
    (
        "column: price",
        "column: pv_{n}_wh",
        "24: did not find expected ',' or '}'; expected YAML: text with {n} needs quotes inside braces",
    ),
    ("  energy: {profile", "  enrgy: {profile", "24: prices.enrgy: unknown resource 'enrgy'; did you mean 'energy'?"),
    (
        "{profile: {file: data/homes.csv, column: price}}",
        "{amount: 0.1234567}",
        "24: prices.energy.amount: found 0.1234567; expected at most 6 decimals, below 1e9",
    ),
    (
        "{profile: {file: data/homes.csv, column: price}}",
        "{}",
        "24: prices.energy: found neither; expected one of: amount, profile",
    ),
    (
        "epoch: 4",
        "epoch: 25",
        "26: changes.0.epoch: found epoch 25, beyond the last, 24; expected an epoch of the scenario",
    ),
    ("until: 9", "until: 5", "27: changes.1.until: found 5; expected 6 or later, where it begins"),
    (
        "set: {constraints.max_transfer.energy: 0.5}",
        "set: {max_transfer.energy: 0.5}",
        "26: changes.0.set.max_transfer.energy: found the key max_transfer.energy; expected constraints.<limit>",
    ),
    (
        "set: {constraints.max_transfer.energy: 0.5}",
        "set: {constraints.max_transfer.enrgy: 0.5}",
        "26: changes.0.set.constraints.max_transfer.enrgy: unknown resource 'enrgy'; did you mean 'energy'?",
    ),
    (
        "set: {constraints.max_transfer.energy: 0.5}",
        "set: {constraints.max_tranfer: 0.5}",
        "26: changes.0.set.constraints.max_tranfer: unknown constraint 'max_tranfer'; did you mean 'max_transfer'?",
    ),
    (
        "set: {constraints.max_transfer.energy: 0.5}",
        "set: {constraints.max_transfer.energy: 0.50005}",
        "26: changes.0.set.constraints.max_transfer.energy: 0.50005 has more decimals than energy (scale 3); "
        "round it, or raise the scale",
    ),
    (
        "set: {constraints.max_transfer.energy: 0.5}",
        "set: {constraints.max_transfer: {energi: 3}}",
        "26: changes.0.set.constraints.max_transfer.energi: unknown resource 'energi'; did you mean 'energy'?",
    ),
    (
        "set: {constraints.max_transfer.energy: 0.5}",
        "set: {constraints.max_transfer.energy.more: 3}",
        "26: changes.0.set.constraints.max_transfer.energy.more: found 5; expected something that has a 'more'",
    ),
    (
        "set: {constraints.max_transfer.energy: 0.5}",
        "set: {constraints.max_transfer.energy: 0.5}, scale: {flow: pv, by: 1}",
        "26: changes.0: found set and scale; expected one of: set, scale",
    ),
    (
        "epoch: 4, set: {constraints.max_transfer.energy: 0.5}",
        "epoch: 4",
        "26: changes.0: found neither; expected one of: set, scale",
    ),
    ("flow: pv", "flow: vp", "27: changes.1.scale.flow: unknown flow 'vp'; expected one of: pv, load, spawn"),
    ("by: 0.3", "by: -0.3", "27: changes.1.scale.by: found -0.3; expected 0 or more"),
    ("by: 0.3", "bye: 0.3", "27: changes.1.scale.bye: unknown key 'bye'; did you mean 'by'?"),
    (
        "order: simultaneous",
        "order: parallel",
        "28: decisions.order: unknown order 'parallel'; expected one of: sequential, simultaneous, random",
    ),
    (
        "order: simultaneous",
        "order: random",
        "28: decisions.allocation: found proportional with order random; "
        "expected order: simultaneous, or no allocation",
    ),
    (
        "allocation: prop",
        "allocation: rop",
        "28: decisions.allocation: unknown allocation 'roportional'; did you mean 'proportional'?",
    ),
    ("commons: {actor: pool", "commons: {actor: pol", "29: commons.actor: unknown actor 'pol'; did you mean 'pool'?"),
    (
        "commons: {actor: pool, resource: energy, collapse_below: 5}\n",
        "",
        "31: proposers.taker.policy: found take, but no commons; expected commons: {actor, resource} in the scenario",
    ),
    ("policy: greedy", "policy: gredy", "31: proposers.gredy.policy: unknown policy 'gredy'; did you mean 'greedy'?"),
    (
        "policy: greedy}",
        "policy: greedy, amount: 3}",
        "31: proposers.greedy.amount: found an amount with greedy; expected one with take alone",
    ),
    (
        'amount: 2, actors: "home-{n}", mandate: [self, pool]',
        "amount: 2",
        "32: proposers.taker.policy: found take without actors; expected actors: who takes from the commons",
    ),
    (
        "policy: take, amount: 2",
        "policy: take",
        "32: proposers.taker.policy: found take without an amount; expected amount: what it asks of the commons",
    ),
    (
        "mandate: [self, pool]",
        "mandate: [self, pol]",
        "32: proposers.taker.mandate.1: unknown actor 'pol'; did you mean 'pool'?",
    ),
    (
        "policy: greedy}",
        "policy: greedy, mandate: [self]}",
        "31: proposers.greedy.mandate.0: found self; expected actors: for whom the proposer speaks",
    ),
    (
        "name: taker",
        "name: taker/1",
        "32: proposers.taker/1.name: found 'taker/1'; expected a name: letters, digits, - and _, at most 64",
    ),
    (
        "policy: greedy}",
        "policy: greedy, name: taker}",
        "32: proposers.taker.name: found 'taker' again (first on line 31); expected another name",
    ),
    ("kind: fixture", "kind: fixtur", "33: proposers.fixtur.kind: unknown kind 'fixtur'; did you mean 'fixture'?"),
    (
        "data/fixture.jsonl",
        "data/fixtures.jsonl",
        "33: proposers.fixture.file: found no file data/fixtures.jsonl; expected one (relative to the scenario's file)",
    ),
    ("role: shadow", "role: shadw", "33: proposers.fixture.role: unknown role 'shadw'; did you mean 'shadow'?"),
    (
        "role: shadow",
        "context: {history: -1}",
        "33: proposers.fixture.context.history: found -1; expected a whole number from 0 to 1000",
    ),
    (
        "role: shadow",
        "on_unavailable: wait",
        "33: proposers.fixture.on_unavailable: unknown on_unavailable 'wait'; expected one of: stop, record",
    ),
    (
        "role: shadow",
        "prompt: x",
        "33: proposers.fixture.prompt: unknown key 'prompt'; "
        "expected one of: name, proposals_per_epoch, actors, mandate, role, context, on_unavailable, kind, ...",
    ),
    (
        "self_sufficiency",
        "self_suficiency",
        "35: expect.self_suficiency.metric: unknown metric 'self_suficiency'; did you mean 'self_sufficiency'?",
    ),
    (
        "resource: energy, at_least",
        "at_least",
        "35: expect.self_sufficiency: found no resource; "
        "expected one, since self_sufficiency is of one: energy, credits",
    ),
    (
        "metric: self_sufficiency",
        "metric: equality",
        "35: expect.equality.resource: found energy, but equality is of the run; expected no resource",
    ),
    (", at_least: 0.4", "", "35: expect.self_sufficiency: found no bound; expected one of: at_least, at_most, equals"),
    (
        "at_least: 0.4",
        "at_least: 0.4, equals: 1",
        "35: expect.self_sufficiency.equals: found equals and another bound; expected equals alone",
    ),
    ("at_least: 0.4", "at_least: lots", "35: expect.self_sufficiency.at_least: found 'lots'; expected a number"),
    ("expect:", "holds: maybe\nexpect:", "34: holds: unknown holds 'maybe'; expected one of: approve, reject, expire"),
    (
        '"home-{n}", count',
        "home-{n}, count",
        "14: did not find expected ',' or '}'; expected YAML: text with {n} needs quotes inside braces",
    ),
    ("name: week", "name:", "1: name: found no value; expected one, or null, {}, [] or ''"),
    (
        "constraints:\n  max_transfer: {energy: 5, credits: 50}\n  min_balance: 0\n",
        "constraints: 3\n",
        "9: constraints: found 3; expected a mapping",
    ),
    (
        "constraints:\n  max_transfer: {energy: 5, credits: 50}\n  min_balance: 0\n",
        "constraints: {max_transfer: many}\n",
        "9: constraints.max_transfer: expected a number of kWh, not 'many'",
    ),
    (
        "decisions: {order: simultaneous, allocation: proportional}",
        "decisions: 3",
        "28: decisions: found 3; expected a mapping",
    ),
    ("  - name: pv\n", "  - 3\n  - name: pv\n", "16: flows.0: found 3; expected a mapping"),
    ("kind: produce", "kind: 3", "17: flows.pv.kind: found 3; expected one of: produce, grow, consume"),
    ("kind: produce", "kind: [1]", "17: flows.pv.kind: found a list; expected one of: produce, grow, consume"),
    ("kind: produce", "kind: null", "17: flows.pv.kind: found null; expected one of: produce, grow, consume"),
    ("kind: produce", "kind: {a: 1}", "17: flows.pv.kind: found a mapping; expected one of: produce, grow, consume"),
    (
        "  energy:  {unit",
        "  my energy:  {unit",
        "7: resources.my energy: found 'my energy'; expected a name: letters, digits, - and _, at most 64",
    ),
    (
        "unit: kWh",
        'unit: "k\\tWh"',
        "7: resources.energy.unit: found 'k\\tWh'; expected at most 32 printable characters",
    ),
    ("unit: kWh", "unit: ''", "7: resources.energy.unit: found ''; expected text"),
    ("unit: kWh", "unit: 3", "7: resources.energy.unit: found 3; expected text"),
    ('start: "2016-07-31T23:00:00Z"', "start: 3", "4: start: found 3; expected text"),
    ("resource: energy, amount: 2", "resource: 3, amount: 2", "21: flows.load.resource: found 3; expected text"),
    ("factor: 2", "factor: 1e20", "22: flows.spawn.factor: found 1E+20; expected a number below 1e15"),
    (
        "factor: 2",
        "factor: 1.000000000000000000001",
        "22: flows.spawn.factor: found 1.000000000000000000001; expected a number of at most 20 decimals",
    ),
    (
        '"home-{n}", count',
        '"hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh{n}", count',
        "18: flows.pv.actors: found no actor that home-{n} matches; "
        "expected some: there are hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh{n}, pool",
    ),
    (
        "column: price",
        'column: "pv_{n}_wh"',
        "24: prices.energy.profile.column: found pv_{n}_wh; expected one column: a price has no actors",
    ),
    ("until: 9", "until: 3", "27: changes.1.until: found 3; expected 6 or later, where it begins"),
    (
        "set: {constraints.max_transfer.energy: 0.5}",
        "set: {constraints: 3}",
        "26: changes.0.set.constraints: found the key constraints; expected constraints.<limit>",
    ),
    ("set: {constraints.max_transfer.energy: 0.5}", "set: 3", "26: changes.0.set: found 3; expected a mapping"),
    (
        'data/homes.csv, column: "pv',
        'data/fixture.jsonl, column: "pv',
        "20: flows.pv.profile.file: data/fixture.jsonl: found no header; "
        "expected the names of the columns on the first line",
    ),
    (
        "policy: greedy",
        "policy: 3",
        "31: proposers.policy.policy: found 3; "
        "expected one of: none, random, greedy, take, take_max, sustainable, optimal, hasty",
    ),
    (
        "mandate: [self, pool]",
        "mandate: {}",
        "32: proposers.taker.mandate: found a mapping; "
        "expected the id of an actor, or a template such as home-{n}: letters, digits, - _ . and :, at most 64",
    ),
    (
        "name: taker",
        "name: 3",
        "32: proposers.take.name: found 3; expected a name: letters, digits, - and _, at most 64",
    ),
    ("every: 3", "every: 3.5", "22: flows.spawn.every: found 3.5; expected a whole number from 1 to 10000000"),
]


@pytest.mark.parametrize(("old", "new", "message"), REFUSED)
def test_refuses(folder, old, new, message):
    assert refusal(folder, replaced(old, new)) == f"week.yaml:{message}"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs", "found no =; expected KEY=VALUE"),
        ("=3", "found the key ''; expected names with a dot between them"),
        ("epochs=", "found nothing; expected a value"),
        ("epochs=many", "epochs: found 'many'; expected a whole number from 1 to 10000000"),
        ("epochs.x=2", "epochs: found 24; expected something that has a 'x'"),
        ("flows=3", "flows: found 3; expected a list"),
        ("flows=[3]", "flows.0: found 3; expected a mapping"),
        ("flows.load.noise={uniform: 2", "did not find expected ',' or '}'; expected YAML"),
        ("flows.pw.amount=3", "flows: unknown element 'pw'; expected one of: pv, load, spawn"),
        ("flows.pv.nosie.normal=3", "flows.pv.nosie: unknown key 'nosie'; did you mean 'noise'?"),
        (
            "constraints.min_balance.enrgy=0.5",
            "constraints.min_balance.enrgy: unknown resource 'enrgy'; did you mean 'energy'?",
        ),
        (
            "constraints.max_transfer.energy=0.5005",
            "constraints.max_transfer.energy: 0.5005 has more decimals than energy (scale 3); "
            "round it, or raise the scale",
        ),
        ("changes.1.until=3", "changes.1.until: found 3; expected 6 or later, where it begins"),
        (
            "resources.bad name.unit=x",
            "resources.bad name: found 'bad name'; expected a name: letters, digits, - and _, at most 64",
        ),
        # what it broke elsewhere
        ("flows.pv.amount=3", "week.yaml:16: flows.pv: found amount and profile; expected one of: amount, profile"),
        (
            "actors.pool.id=lake",
            "week.yaml:22: flows.spawn.actors: unknown actor 'pool'; expected one of: lake, home-1, home-2, home-{n}",
        ),
        (
            "actors.home-{n}.count=5",
            "week.yaml:20: flows.pv.profile.column: unknown column 'pv_3_wh'; "
            "did you mean 'pv_2_wh'? (in data/homes.csv)",
        ),
        (
            "commons=null",
            "week.yaml:32: proposers.taker.policy: found take, but no commons; "
            "expected commons: {actor, resource} in the scenario",
        ),
    ],
)
def test_says_which_override_is_wrong(folder, override, message):
    assert refusal(folder, BASE, "seed=9", override) == f"--set {override}: {message}"


def test_an_override_is_not_blamed_for_what_the_file_says(folder):
    text = replaced("policy: greedy", "policy: gredy")
    assert refusal(folder, text, "seed=9", epochs=12).startswith("week.yaml:31: proposers.gredy.policy: unknown policy")


def test_the_first_error_of_the_file_is_told(folder):
    text = replaced("at_least: 0.4", "at_least: x", replaced("scale: 2", "scale: x"))
    assert refusal(folder, text).startswith("week.yaml:8: resources.credits.scale: found 'x'")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "--epochs 0: epochs: found 0; expected a whole number from 1 to 10000000"),
        ({"seed": -1}, "--seed -1: seed: found -1; expected a whole number from 0 to 9007199254740991"),
        (
            {"epochs": 30},
            "week.yaml:20: flows.pv.profile: data/homes.csv: found 24 rows; expected 30, one for each epoch",
        ),
        ({"proposer": "policy:tak"}, "--proposer policy:tak: unknown policy 'tak'; did you mean 'take'?"),
        (
            {"proposer": "policy:take_max"},
            "--proposer policy:take_max: found take_max without actors; expected actors: who takes from the commons",
        ),
        ({"proposer": "fixture:x.jsonl"}, "--proposer fixture:x.jsonl: found no file x.jsonl; expected one"),
        (
            {"proposer": "greedy"},
            "--proposer greedy: expected policy:NAME, fixture:PATH, cassette:PATH or gemini:MODEL",
        ),
    ],
)
def test_refuses_options(folder, options, message):
    assert refusal(folder, **options) == message


def test_refuses_lists_without_elements(folder):
    start = BASE.index("proposers:")
    assert (
        refusal(folder, BASE[:start] + "proposers: []\n")
        == "week.yaml:30: proposers: found none; expected at least one"
    )
    message = "--set {0}: {1}: found none; expected at least one"
    assert refusal(folder, BASE, "actors=[]") == message.format("actors=[]", "actors")
    assert refusal(folder, BASE, "resources={}") == message.format("resources={}", "resources")


def test_refuses_more_actors_than_there_may_be(folder):
    many = "actors=[{id: '{n}-a', count: 60000}, {id: '{n}-b', count: 60000}]"
    assert refusal(folder, BASE, many) == f"--set {many}: actors: found 120,000 actors; expected at most 100,000"


def test_refuses_more_than_memory_holds(folder):
    found = "found 10,000,000 epochs of 3 actors with 2 resources: 60,000,000 balances; expected at most 59,999,999"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("sim.loading.BALANCES_MAX", 59_999_999)
        assert refusal(folder, BASE, epochs=10_000_000) == f"--epochs 10000000: epochs: {found}"
        patched.setattr("sim.loading.BALANCES_MAX", 60_000_000)
        assert loaded(folder, BASE, epochs=10_000_000).epochs == 10_000_000
    many = "actors=[{id: 'a-{n}', count: 100000}]"
    flat = BASE.partition("flows:")[0] + "proposers: [{kind: policy, policy: none}]\n"
    assert "501 epochs of 100,000 actors" in refusal(folder, flat, many, epochs=501)


def test_refuses_an_id_that_grows_too_long(folder):
    long = "h" * 60
    override = f"actors=[{{id: '{long}{{n}}', count: 10000}}]"
    found = f"'{long[:55]}...'; expected at most 64 characters"
    assert refusal(folder, BASE, override) == f"--set {override}: actors.{long}{{n}}.id: found {found}"


def test_refuses_what_is_no_scenario(folder):
    assert refusal(folder, "- a") == "week.yaml:1: found a list; expected a scenario: a mapping"
    with pytest.raises(BadInput, match=r"^absent.yaml: No such file or directory; expected a file to read$"):
        load("absent.yaml")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("", "data/homes.csv:4: column pv_2_wh, epoch 3: found an empty cell; expected a number"),
        ("x", "data/homes.csv:4: column pv_2_wh, epoch 3: found 'x'; expected a number"),
        ("NaN", "data/homes.csv:4: column pv_2_wh, epoch 3: found 'NaN'; expected a number"),
        ("-1", "data/homes.csv:4: column pv_2_wh, epoch 3: found -1; expected a number from 0"),
        ("1.5", "data/homes.csv:4: column pv_2_wh, epoch 3: found 1.5; expected whole steps of 1, or round: half_even"),
        ("1,2", "data/homes.csv:4: epoch 3: found 5 cells; expected 4, as in the header"),
    ],
)
def test_check_files_finds_a_bad_cell(folder, cell, message):
    file = folder / "data/homes.csv"
    file.write_text(file.read_text().replace("\n2,14,6,", f"\n2,14,{cell},"))
    assert refusal(folder) == f"week.yaml:20: flows.pv.profile: {message}"


def test_a_change_beyond_the_horizon_is_an_error_unless_the_run_was_shortened(folder):
    late = replaced("epoch: 4", "epoch: 25")
    beyond = "changes.0.epoch: found epoch 25, beyond the last, 24; expected an epoch of the scenario"
    assert refusal(folder, late) == f"week.yaml:26: {beyond}"
    assert refusal(folder, late, epochs=12) == f"week.yaml:26: {beyond}"
    shortened = loaded(folder, epochs=3)
    assert [first for first, _ in shortened.constraints] == [1]
    assert shortened.scalings == ()
    assert loaded(folder, BASE, "epochs=3").epochs == 3


# --- what is expanded -------------------------------------------------------------------------------------------------


def test_expands_actors_and_their_balances_in_order(folder):
    found = loaded(folder)
    assert found.resources == (Resource("energy", "kWh", 3), Resource("credits", "credit", 2))
    assert found.actors == (Member("pool", "plant", None), Member("home-1", "node", 1), Member("home-2", "node", 2))
    assert found.opening == (
        ("pool", "energy", 40_000),
        ("home-1", "energy", 1_500),
        ("home-1", "credits", 10_000),
        ("home-2", "energy", 1_500),
        ("home-2", "credits", 10_000),
    )
    assert found.resource("credits") is found.resources[1]
    assert found.storage == {("home-1", "energy"): 6_400, ("home-2", "energy"): 6_400}
    assert found.commons == Commons("pool", "energy", 5_000)
    assert (found.seed, found.epochs, found.length) == (3, 24, 3_600_000_000)
    assert found.start_at == 1_470_006_000_000_000


def test_defaults(folder):
    found = loaded(
        folder,
        """\
name: least
epochs: 2
start: 2025-01-01T00:00:00Z
epoch_length: 15m
resources: {energy: {unit: kWh}}
actors: [{id: a}, {id: b}]
proposers: [{kind: policy, policy: none}]
""",
    )
    assert (found.seed, found.description, found.holds) == (SEED, "", "expire")
    assert (found.decisions.order, found.decisions.allocation) == ("sequential", "refuse")
    assert found.start_at == 1_735_689_600_000_000
    assert (found.length, found.resources) == (900_000_000, (Resource("energy", "kWh", 3),))
    assert [actor.type for actor in found.actors] == ["node", "node"]
    assert found.constraints_at(1).min_balance == Limit({"energy": 0}, {})
    assert (found.opening, found.storage, found.flows, found.prices, found.expect) == ((), {}, (), {}, ())
    (speaker,) = found.speakers
    assert speaker == Speaker(
        name="none",
        group="none",
        kind="policy",
        role="active",
        actor=None,
        mandate=None,
        proposals_per_epoch=1,
        history=0,
        on_unavailable="stop",
        policy="none",
        amount=None,
        file=None,
        path=None,
        prompt="propose_transfer",
        model=None,
    )


def test_expands_a_large_community_quickly(folder):
    text = replaced("    profile:", "    amount: 1\n    x:", replaced("count: 2", "count: 5000")).replace(
        "    x: ", "    # "
    )
    found = loaded(folder, text)
    assert len(found.speakers) == 5_002
    assert found.speakers[5_000].mandate == ("pool", "home-5000")


def test_a_commons_need_not_collapse(folder):
    assert loaded(folder, replaced(", collapse_below: 5", "")).commons == Commons("pool", "energy", None)


def test_expands_flows(folder):
    pv, load_, spawn = loaded(folder).flows
    assert (pv.name, pv.kind, pv.resource, pv.actors) == ("pv", "produce", "energy", ("home-1", "home-2"))
    assert (pv.first, pv.until, pv.every, pv.amount) == (1, 24, 1, None)
    assert pv.profile.columns == ("pv_1_wh", "pv_2_wh")
    assert (pv.profile.per_unit, pv.profile.rounded) == (1, False)
    assert (load_.amount, load_.noise) == (2_000, Noise("normal", Fraction(300)))
    assert (spawn.kind, spawn.factor, spawn.cap, spawn.every) == ("grow", 2, 100_000, 3)


def test_a_flow_runs_from_until_and_every(folder):
    flow = loaded(folder, replaced("every: 3", "every: 3, from: 2, until: 8")).flows[2]
    assert [epoch for epoch in range(1, 25) if flow.active(epoch)] == [2, 5, 8]


def test_reads_profiles_and_prices_to_the_horizon(folder):
    found = loaded(folder, epochs=5)
    one, two = found.flow_series("pv")
    assert (one.dtype, one.tolist(), two.tolist()) == (np.int64, [0, 7, 14, 21, 28], [0, 3, 6, 9, 12])
    assert found.price_series()["energy"].tolist() == [200_000, 210_000, 220_000, 230_000, 240_000]
    constant = loaded(folder, BASE, "prices.energy={amount: -0.05}", epochs=3)
    assert constant.prices == {"energy": Price(-50_000, None)}
    assert constant.price_series()["energy"].tolist() == [-50_000] * 3


def test_first_row_moves_all_profiles_and_is_part_of_what_determines_the_run(folder):
    later = loaded(folder, BASE, "first_row=2", epochs=3)
    assert later.flow_series("pv")[0].tolist() == [14, 21, 28]
    assert later.price_series()["energy"].tolist() == [220_000, 230_000, 240_000]
    assert later.resolved() == {**loaded(folder, epochs=3).resolved(), "first_row": 2}
    assert loaded(folder, BASE, "first_row=0", epochs=3).resolved() == loaded(folder, epochs=3).resolved()
    with pytest.raises(BadInput, match="no flow and no price reads a file"):
        load(SCENARIOS / "seed.yaml", ["first_row=7"])


def test_a_profile_column_may_be_shared_and_actors_may_be_some_of_a_template(folder):
    (profile,) = (flow.profile for flow in loaded(folder, BASE, "flows.pv.actors=[home-2]").flows[:1])
    assert profile.columns == ("pv_2_wh",)
    (profile,) = (flow.profile for flow in loaded(folder, BASE, "flows.pv.profile.column=pv_1_wh").flows[:1])
    assert profile.columns == ("pv_1_wh", "pv_1_wh")


def test_a_template_matches_actors_that_were_written_one_by_one(folder):
    text = replaced('"home-{n}", count: 2', "home-1", BASE)
    text = replaced("flows:\n", "  - {id: home-02}\n  - {id: home-2}\n  - {id: home-2x}\nflows:\n", text)
    assert loaded(folder, text).flows[0].profile.columns == ("pv_1_wh", "pv_2_wh")


def test_constraints_of_an_epoch(folder):
    found = loaded(folder)
    assert found.constraints_at(3).max_transfer == Limit({"energy": 5_000, "credits": 5_000}, {})
    assert found.constraints_at(4).max_transfer == Limit({"energy": 500, "credits": 5_000}, {})
    assert found.constraints_at(24) is found.constraints_at(4)


def test_a_set_with_an_end_goes_back_and_a_later_one_wins(folder):
    changes = """\
changes:
  - {epoch: 4, until: 8, set: {constraints.max_transfer: 2}}
  - {epoch: 6, set: {constraints.max_transfer.energy: 1, constraints.hold_above: {energy: 0.5}}}
  - {epoch: 10, until: 10, set: {constraints.max_transfer: null}}
  - {epoch: 12, until: 13, set: {constraints.max_transfer.actors.home-1.energy: 0}}
  - {epoch: 1, until: 1, set: {constraints.min_balance: 1}}
"""
    start, end = BASE.index("changes:\n"), BASE.index("decisions:")
    found = loaded(folder, BASE[:start] + changes + BASE[end:])
    limits = {epoch: found.constraints_at(epoch).max_transfer for epoch in range(1, 25)}
    assert limits[3] == Limit({"energy": 5_000, "credits": 5_000}, {})
    assert limits[4] == limits[5] == Limit({"energy": 2_000, "credits": 200}, {})
    assert limits[6] == limits[8] == Limit({"energy": 1_000, "credits": 200}, {})
    assert limits[9] == limits[11] == limits[14] == Limit({"energy": 1_000, "credits": 5_000}, {})
    assert limits[10] is None
    assert limits[12] == Limit(limits[9].by_resource, {"home-1": {"energy": 0}})
    assert found.constraints_at(6).hold_above == Limit({"energy": 500}, {})
    assert [found.constraints_at(epoch).min_balance.by_resource["energy"] for epoch in (1, 2)] == [1_000, 0]
    assert [first for first, _ in found.constraints] == [1, 2, 4, 6, 9, 10, 11, 12, 14]


def test_scalings_multiply(folder):
    text = replaced("decisions:", "  - {epoch: 8, scale: {flow: pv, by: 2}}\ndecisions:")
    found = loaded(folder, text)
    assert found.scalings == (Scaling("pv", 6, 9, Fraction(3, 10)), Scaling("pv", 8, 24, Fraction(2)))
    assert [found.scale_at("pv", epoch) for epoch in (5, 6, 8, 10)] == [1, Fraction(3, 10), Fraction(3, 5), 2]
    assert found.scale_at("load", 8) == 1


def test_expands_a_proposer_to_one_for_each_actor(folder):
    found = loaded(folder)
    assert [speaker.name for speaker in found.speakers] == ["greedy", "taker/home-1", "taker/home-2", "fixture"]
    _, one, two, shadow = found.speakers
    assert (one.actor, one.mandate, one.group, one.prompt) == ("home-1", ("pool", "home-1"), "taker", "speak_for_actor")
    assert (two.actor, two.mandate, two.amount) == ("home-2", ("pool", "home-2"), 2_000)
    assert (shadow.role, shadow.file, shadow.path) == ("shadow", "data/fixture.jsonl", Path("data/fixture.jsonl"))


@pytest.mark.parametrize(
    ("mandate", "expected"),
    [
        ("", (("home-1",), ("home-2",))),
        ("mandate: []", None),
        ("mandate: self", (("home-1",), ("home-2",))),
        ('mandate: "home-{n}"', (("home-1", "home-2"), ("home-1", "home-2"))),
        ("mandate: [home-2, self, pool]", (("pool", "home-1", "home-2"), ("pool", "home-2"))),
    ],
)
def test_resolves_mandates(folder, mandate, expected):
    text = replaced(", mandate: [self, pool]", f", {mandate}" if mandate else "")
    if expected is None:
        assert "found an empty list; expected at least one actor" in refusal(folder, text)
    else:
        assert tuple(speaker.mandate for speaker in loaded(folder, text).speakers[1:3]) == expected


def test_proposers_without_a_name_are_named_after_what_they_are(folder):
    start, end = BASE.index("proposers:\n"), BASE.index("expect:")
    proposers = """\
proposers:
  - {kind: policy, policy: greedy}
  - {kind: policy, policy: greedy}
  - {name: greedy-2, kind: policy, policy: none}
  - {kind: fixture, file: data/fixture.jsonl}
  - {kind: fixture, file: data/fixture.jsonl}
  - {kind: policy, policy: none, actors: "home-{n}"}
"""
    found = loaded(folder, BASE[:start] + proposers + BASE[end:])
    names = [speaker.name for speaker in found.speakers]
    assert names == ["greedy", "greedy-3", "greedy-2", "fixture", "fixture-2", "none/home-1", "none/home-2"]


def test_a_proposer_that_asks_a_model_may_name_prompt_and_model(folder):
    text = replaced(
        "  - {kind: fixture, file: data/fixture.jsonl, role: shadow}",
        """\
  - {kind: cassette, cassette: data/fixture.jsonl, prompt: mine, model: gemini-3.8-flash, on_unavailable: record}
  - {kind: gemini, context: {history: 3}, proposals_per_epoch: 2, actors: pool}""",
    )
    cassette, gemini = loaded(folder, text).speakers[3:]
    assert (cassette.prompt, cassette.model, cassette.on_unavailable) == ("mine", "gemini-3.8-flash", "record")
    assert (gemini.prompt, gemini.model, gemini.history, gemini.proposals_per_epoch) == ("speak_for_actor", None, 3, 2)
    assert gemini.name == "gemini/pool"


def test_proposer_option_replaces_how_active_ones_answer_and_nothing_else(folder):
    written = loaded(folder)
    found = loaded(folder, proposer="policy:none")
    assert [speaker.policy for speaker in found.speakers] == ["none", "none", "none", None]
    for old, new in zip(written.speakers, found.speakers, strict=True):
        kept = {"policy": old.policy, "amount": old.amount}
        assert new._replace(**kept) == old
    fixture = loaded(folder, proposer="fixture:data/homes.csv").speakers[0]
    assert (fixture.kind, fixture.file, fixture.path) == ("fixture", "data/homes.csv", Path("data/homes.csv"))
    assert loaded(folder, proposer="gemini:some-model").speakers[1].model == "some-model"


def test_proposer_option_names_a_file_from_where_the_command_runs(folder):
    (folder / "sub").mkdir()
    (folder / "sub/week.yaml").write_text(BASE.replace("data/", "../data/"))
    (folder / "sub/x.jsonl").write_text("of the scenario")
    (folder / "x.jsonl").write_text("of the command")
    found = load("sub/week.yaml", ["proposers.fixture.file=x.jsonl"], proposer="fixture:x.jsonl")
    assert found.speakers[0].path.read_text() == "of the command"
    assert found.speakers[3].path.read_text() == "of the scenario"
    digests = {found.content_digest(speaker.file) for speaker in found.speakers}
    assert len(digests) == 2
    assert found.files["x.jsonl"] == Path("x.jsonl")
    assert found.files[found.speakers[3].file] == Path("sub/x.jsonl")


def test_proposer_option_needs_no_file_of_what_it_replaces(folder):
    text = replaced("role: shadow", "role: active")
    (folder / "data/fixture.jsonl").unlink()
    assert "found no file data/fixture.jsonl" in refusal(folder, text)
    assert list(loaded(folder, text, proposer="policy:none").files) == ["data/homes.csv"]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("metric: unmet, resource: credits, at_most: 3", Expectation("unmet", "credits", None, 3, None)),
        ("metric: gain, at_least: 1, at_most: 2", Expectation("gain", None, 1, 2, None)),
        ("metric: regret, equals: 0", Expectation("regret", None, None, None, 0)),
        ("metric: regret, resource: energy, equals: 0.5", Expectation("regret", "energy", None, None, Decimal("0.5"))),
    ],
)
def test_reads_expectations(folder, written, expected):
    text = replaced("metric: self_sufficiency, resource: energy, at_least: 0.4", written)
    assert loaded(folder, text).expect == (expected,)


def test_an_expectation_finds_the_only_resource_there_is():
    found = load(SCENARIOS / "drought.yaml", ["expect=[{metric: unmet, at_most: 5}]"])
    assert found.expect == (Expectation("unmet", "water", None, 5, None),)


# --- overrides --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "shown"),
    [
        ("seed=5", lambda s: s.seed == 5),
        ("epochs=10", lambda s: s.epochs == 10),
        ("name=other", lambda s: s.name == "other"),
        ("flows.load.noise.normal=1", lambda s: s.flows[1].noise.width == 1_000),
        ("flows.load.noise=null", lambda s: s.flows[1].noise is None),
        ("flows.load.noise={uniform: 2}", lambda s: s.flows[1].noise == Noise("uniform", Fraction(2_000))),
        ("flows.pv.noise.normal=0.001", lambda s: s.flows[0].noise == Noise("normal", Fraction(1))),
        ("flows.1.every=2", lambda s: s.flows[1].every == 2),
        ("actors.home-{n}.balances.energy=2", lambda s: s.opening[1] == ("home-1", "energy", 2_000)),
        ("actors.pool.storage.credits=2", lambda s: s.storage.get(("pool", "credits")) == 200),
        (
            "constraints.epoch_quota=3",
            lambda s: s.constraints_at(1).epoch_quota == Limit({"energy": 3_000, "credits": 300}, {}),
        ),
        ("constraints.max_transfer=null", lambda s: s.constraints_at(1).max_transfer is None),
        ("constraints.max_transfer.energy=1", lambda s: s.constraints_at(1).max_transfer.of("pool", "energy") == 1_000),
        (
            "constraints.min_balance.energy=0.5",
            lambda s: s.constraints_at(1).min_balance == Limit({"energy": 500, "credits": 0}, {}),
        ),
        (
            "constraints.min_balance.actors.home-1.energy=2",
            lambda s: s.constraints_at(1).min_balance.by_actor == {"home-1": {"energy": 2_000}},
        ),
        (
            "constraints.auto_pause.moved_per_epoch=3",
            lambda s: s.constraints_at(1).auto_pause == AutoPause(moved_per_epoch={"energy": 3_000, "credits": 300}),
        ),
        (
            "changes.0.set.constraints.max_transfer.energy=0.25",
            lambda s: s.constraints_at(4).max_transfer.of("pool", "energy") == 250,
        ),
        ("proposers.greedy.proposals_per_epoch=2", lambda s: s.speakers[0].proposals_per_epoch == 2),
        ("proposers.taker.amount=2.5", lambda s: s.speakers[1].amount == 2_500),
        ("proposers=[{kind: policy, policy: none}]", lambda s: [each.name for each in s.speakers] == ["none"]),
        ("expect=[]", lambda s: s.expect == ()),
        ("expect.self_sufficiency.at_least=0.9", lambda s: s.expect[0].at_least == Decimal("0.9")),
        ("holds=approve", lambda s: s.holds == "approve"),
    ],
)
def test_override(folder, override, shown):
    found = loaded(folder, BASE, override)
    assert shown(found)
    assert not shown(loaded(folder))
    assert found.overrides == (override,)
    assert found.source == BASE


def test_overrides_apply_in_order_and_options_win(folder):
    found = loaded(folder, BASE, "seed=5", "seed=6", "epochs=10", epochs=4, seed=8)
    assert (found.seed, found.epochs, found.overrides) == (8, 4, ("seed=5", "seed=6", "epochs=10"))


# --- what determines a run --------------------------------------------------------------------------------------------


def shuffled(value, order):
    """The same value with keys in another order; resources keep theirs, in which proposers see them."""
    if isinstance(value, list):
        return [shuffled(each, order) for each in value]
    if not isinstance(value, dict):
        return value
    keys = list(value)
    if keys != ["energy", "credits"]:
        order.shuffle(keys)
    return {key: shuffled(value[key], order) for key in keys}


def named_files(text, tmp, **options):
    return loads(text, "x.yaml", lambda file: tmp / file, **options)


def test_resolves_to_plain_values_without_what_only_people_see(folder):
    resolved = loaded(folder, replaced("name: week", "name: week\ndescription: It says words")).resolved()
    text = canonical(resolved)
    assert json.loads(text) == resolved
    for absent in ("week", "words", "homes.csv", "fixture", "greedy", "self_sufficiency"):
        assert absent not in text
    assert resolved["flows"][0]["profile"] == {
        "file": loaded(folder).content_digest("data/homes.csv"),
        "columns": ["pv_1_wh", "pv_2_wh"],
        "per_unit": "1",
        "rounded": False,
    }
    assert resolved["flows"][1]["noise"] == {"kind": "normal", "width": "300"}
    assert resolved["scalings"] == [{"flow": "pv", "first": 6, "until": 9, "by": "0.3"}]
    assert resolved["constraints"][1]["epoch"] == 4
    assert resolved["opening"][0] == ["pool", "energy", 40_000]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("module")
    (path / "data").mkdir()
    (path / "data/homes.csv").write_text("pv_1_wh,pv_2_wh,price\n" + "1,2,0.5\n" * 24)
    (path / "data/fixture.jsonl").write_text("")
    return path


@settings(max_examples=30)
@given(order=st.randoms(use_true_random=False), indent=st.sampled_from([None, 1]))
def test_resolves_to_the_same_however_it_is_written(data, order, indent):
    value = strict_yaml.parse(BASE, "week.yaml").value
    text = json.dumps(shuffled(value, order), default=float, indent=indent)
    assert canonical(named_files(text, data).resolved()) == canonical(named_files(BASE, data).resolved())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("energy: 5,", "energy: 5.0,"),
        ("energy: 5,", "energy: 50e-1,"),
        ("min_balance: 0", "min_balance: {energy: 0, credits: 0}"),
        ("  min_balance: 0\n", ""),
        ("epoch_length: 1h", "epoch_length: 60m"),
        ("count: 2,", "count: 2, type: node,"),
        ("every: 3", "every: 3, from: 1, until: 24"),
        ("unit: Wh", "unit: Wh, round: null"),
        ("[home-1, home-2]", '"home-{n}"'),
        ("name: week", "name: other"),
        ("at_least: 0.4", "at_least: 0.5"),
        ("policy: greedy", "policy: none"),
        ("2016-07-31T23:00:00Z", "2016-07-31T23:00:00.000+00:00"),
        ("data/homes.csv", "data/../data/homes.csv"),
    ],
)
def test_what_means_the_same_resolves_to_the_same(data, old, new):
    assert named_files(replaced(old, new), data).resolved() == named_files(BASE, data).resolved()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("seed: 3", "seed: 4"),
        ("epochs: 24", "epochs: 23"),
        ("2016-07-31T23", "2016-07-31T22"),
        ("epoch_length: 1h", "epoch_length: 2h"),
        ("scale: 2}", "scale: 3}"),
        ("unit: credit", "unit: credits"),
        ("energy: 1.5", "energy: 1.6"),
        ("energy: 6.4", "energy: 6.5"),
        ("type: plant", "type: dam"),
        ("credits: 50", "credits: 51"),
        ("amount: 2, noise", "amount: 3, noise"),
        ("normal: 0.3", "uniform: 0.3"),
        ("factor: 2", "factor: 2.5"),
        ("cap: 100", "cap: 101"),
        ("every: 3", "every: 4"),
        ("pv_{n}_wh", "pv_1_wh"),
        ("column: price", "column: pv_1_wh"),
        ("energy: 0.5}", "energy: 0.6}"),
        ("by: 0.3", "by: 0.4"),
        ("order: simultaneous, allocation: proportional", "order: simultaneous, allocation: random"),
        ("order: simultaneous, allocation: proportional", "order: random"),
        ("collapse_below: 5", "collapse_below: 6"),
        ("expect:", "holds: approve\nexpect:"),
    ],
)
def test_what_determines_a_run_is_in_what_is_resolved(data, old, new):
    assert canonical(named_files(replaced(old, new), data).resolved()) != canonical(named_files(BASE, data).resolved())


def test_other_data_resolves_to_another_digest(folder):
    before = loaded(folder).resolved()
    file = folder / "data/homes.csv"
    file.write_text(file.read_text().replace("\n2,14,6,", "\n2,14,7,"))
    assert loaded(folder).resolved() != before


def test_names_every_file_that_it_reads(folder):
    found = loaded(folder)
    assert found.files == {
        "data/homes.csv": Path("data/homes.csv"),
        "data/fixture.jsonl": Path("data/fixture.jsonl"),
    }
    empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert found.content_digest("data/fixture.jsonl") == empty
    later = loaded(folder)
    (folder / "data/fixture.jsonl").unlink()
    assert found.content_digest("data/fixture.jsonl") == empty, "what was read once stays as it was"
    with pytest.raises(BadInput, match=r"^data/fixture.jsonl: No such file or directory; expected a file to read$"):
        later.content_digest("data/fixture.jsonl")


def test_a_scenario_travels_between_processes(folder):
    found = loaded(folder)
    assert pickle.loads(pickle.dumps(found)).resolved() == found.resolved()


# --- the scenarios of the repository ----------------------------------------------------------------------------------


def test_reads_the_community_of_the_design():
    found = loads(COMMUNITY, "community-week.yaml", lambda file: SCENARIOS / file)
    found.check_files()
    assert (found.name, found.epochs, len(found.actors), found.files) == (
        "community-week",
        168,
        17,
        {"data/citylearn_2022_17_homes.csv.gz": DATA},
    )
    with gzip.open(DATA, "rt") as file:
        rows = list(csv.DictReader(file))[:168]
    for name, column in (("pv", "pv_{n}_wh"), ("load", "load_{n}_wh")):
        for n, series in enumerate(found.flow_series(name), start=1):
            assert series.tolist() == [int(row[column.replace("{n}", str(n))]) for row in rows]
    prices = [int(Decimal(row["price_usd_per_kwh"]) * 10**6) for row in rows]
    assert found.price_series()["energy"].tolist() == prices
    assert [first for first, _ in found.constraints] == [1, 100]
    assert found.scale_at("pv", 120) == Fraction(3, 10)


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_scenario_is_valid_and_so_says_the_schema(path):
    found = load(path)
    found.check_files()
    assert found.name == path.stem
    jsonschema.validate(strict_yaml.parse(found.source, path.name).value, json.loads(SCHEMA.read_text("utf-8")))


def test_the_schema_in_the_repository_is_that_of_the_form():
    written = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    assert SCHEMA.read_text("utf-8") == written, "write it anew: gridgov schema > scenarios/scenario.schema.json"


def test_the_schema_describes_every_field():
    def undescribed(schema, where):
        for key, each in schema.get("properties", {}).items():
            if "description" not in each:
                yield f"{where}.{key}"

    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    models = {"scenario": schema, **schema["$defs"]}
    assert [found for name, model in models.items() for found in undescribed(model, name)] == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("epochs: 24", "epoch: 24"),
        ("epochs: 24", "epochs: many"),
        ("scale: 3", "scale: 7"),
        ("unit: Wh", "unit: Wh, scale: 3"),
        ("max_transfer:", "max_tranfer:"),
        ("constraints.max_transfer.energy: 0.5", "max_transfer.energy: 0.5"),
        ("kind: fixture", "kind: fixtur"),
        ("policy: greedy", "policy: gredy"),
        ("energy: 1.5", "energy: -1"),
        ("metric: self_sufficiency", "metric: self_suficiency"),
        ("normal: 0.3", "gauss: 0.3"),
        ('"home-{n}", count', '"häuser-{n}", count'),
    ],
)
def test_the_schema_refuses(old, new):
    validator = jsonschema.Draft202012Validator(json_schema())
    assert validator.is_valid(strict_yaml.parse(BASE, "week.yaml").value)
    assert not validator.is_valid(strict_yaml.parse(replaced(old, new), "week.yaml").value)


def test_loads_without_what_only_profiles_need():
    code = (
        "import sys; from sim.loading import load; load('scenarios/commons-fishery.yaml').resolved();"
        "print([name for name in ('numpy', 'pyarrow', 'jinja2', 'duckdb', 'scipy') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
