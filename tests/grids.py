"""A grid in Postgres with rows of every kind in every table, for tests; no expectation lives here."""

import json
from contextlib import contextmanager
from functools import partial
from typing import Any

import psycopg
from psycopg import sql

from gridgov import beside, postgres
from gridgov.beside import Interaction
from gridgov.engine import Metered
from gridgov.grid_tables import judged_aside
from gridgov.journal import Activation, Once, Registration, canonical, encode
from gridgov.model import Actor, Malformed, Proposal, Round, Transfer, uuid5
from gridgov.postgres import Pool, PostgresLedger, Reader, Writer, migrate
from gridgov.prompt import exact_json, load, render
from gridgov.propose import Answer, Context
from gridgov.shown import shown_by
from gridgov.state import copied
from gridgov.stored import entries_after
from tests import worlds

GRID = "main"
GUARDED = ("journal", "ledger", "shadows", "requests")
READ_LATE = [Metered("produce", "actor-1", "energy", 7), Metered("consume", "actor-2", "energy", 3)]


def play(url):
    """Makes a grid of `worlds.everything`, and of what people, meters and a model did after it."""
    migrate(url, GRID)
    world, _ = worlds.everything()
    ledger = PostgresLedger(url, GRID)
    entries = world.ledger.entries()
    for record in world.ledger.records():
        ledger.append(record, [entry for entry in entries if entry.seq == record.seq])
    ledger.commit()
    ledger.close()
    at = world.at
    with Writer(url, GRID) as writer:
        for n in range(1, 6):
            ask(writer, at, n)
        for act in (
            lambda e: e.override((Transfer("actor-1", "actor-2", "energy", 5),), at, "ops", "by hand", once("a")),
            lambda e: e.override((Transfer("actor-2", "actor-1", "water", 999),), at, "ops", "too much", once("b")),
            lambda e: e.reverse(entries_of(url)[-1:], at, "ops", "a mistake", once=once("c")),
            lambda e: e.activate(Activation("plan", "gemini", "ab" * 32, operator="ops", reason="new"), at, once("d")),
            lambda e: e.register(Registration((Actor("actor-3", "battery"),), operator="ops", reason="rebuilt"), at),
            lambda e: e.meter("roof", READ_LATE, at, epoch=1, once=once("e")),
            lambda e: e.close(at + worlds.HOUR),
        ):
            writer.submit(act)
        aside(url, at)
        ask(writer, at, 1)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO main.outbox_acks VALUES (3, 3, 'ISSUE-1', now())")


def aside(url, at):
    """What a shadow beside the model proposed: one that would be executed, one judged late, one that is none."""
    reader, pool = Reader(url, GRID), Pool(url, GRID, postgres.APP)
    state = reader.look(copied)
    shown = shown_by(state)
    prompt = load("propose_transfer")
    give = Answer((Transfer("actor-1", "actor-2", "energy", 1),), "as a shadow")
    given: list[tuple[Any, str | None]] = [
        (give, None),
        (give, shown),
        (Malformed("not_pure_json", "at 0", b"x"), None),
    ]
    for n, (said, moved) in enumerate(given, start=1):
        round_ = Round(state.epoch, "model/shadow", n)
        request = render(prompt, Context(round_, state), model="gemini-next")
        body = exact_json(request.body).encode()
        about: dict[str, Any] = {"model_asked": request.model, "prompt": request.prompt, "round": round_._asdict()}
        about |= {"components": request.components, "parameters": request.parameters, "sample": 0, "seen": shown}
        key = request.request_key
        pool.ask(partial(beside.keep_request, handed=beside.Handed(key, at, body, canonical(about))))
        decision = judged_aside(state, round_, said, moved)
        row = beside.Shadow(
            round_.proposal_id, round_.epoch, round_.proposer, n, state.seq, at, encode(decision), request.prompt,
            request.model, key, shown, None,
        )  # fmt: skip
        kept = Interaction(round_.proposal_id, key, at, body, 200, b"{}", canonical({**about, "origin": "recorded"}))
        pool.ask(partial(beside.add_shadow, shadow_=row, interaction=kept))
    reader.close()
    pool.close()


def once(name):
    return Once(uuid5(f"request/{name}"), "ab" * 32)


def ask(writer, at, n, amount=1):
    """Proposes as a model did, whose reply is kept."""
    epoch = writer.submit(lambda engine: engine.state.epoch)
    round_ = Round(epoch, "model", n)
    request = {"contents": [{"parts": [{"text": "what now?"}]}], "systemInstruction": {"parts": [{"text": "plan"}]}}
    about: dict[str, Any] = {"model_asked": "gemini", "origin": "recorded", "prompt": "plan"}
    if n == 4:  # all that a line of a cassette needs
        about |= {"components": {"prompt": "cd" * 32}, "parameters": {}, "round": round_._asdict(), "sample": 1}
        about |= {"attempts": 1, "failure": "", "finish_reason": None}
    kept = Interaction(
        round_.proposal_id, f"{n:064x}", at, json.dumps(request).encode(), 200,
        b'{"candidates": []}\n\xff' if n == 2 else b"{}", canonical(about), '{"answer":7,"prompt":40}', 12,
    )  # fmt: skip
    asked = Proposal(round_.proposal_id, "model", n, (Transfer("actor-1", "actor-2", "energy", amount),), f"round {n}")
    if n == 3:
        fault = Malformed("not_pure_json", "at 0", b"x")
        return writer.submit(partial(fail, round_=round_, fault=fault, at=at), round_.proposal_id, kept)
    return writer.submit(lambda engine: engine.propose(asked, at), asked.id, kept)


def fail(engine, round_, fault, at):
    return engine.fail(round_.proposal_id, "model", round_.n, fault, at)


def entries_of(url):
    """The entries as they are stored."""
    connection = postgres.connect(url, GRID, postgres.READ)
    try:
        return list(entries_after(connection))
    finally:
        connection.close()


@contextmanager
def tampering(url):
    """A superuser's session in which nothing refuses a change; afterwards everything does again."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(GRID)))
        connection.execute("SET session_replication_role TO replica")
        connection.execute("ALTER TABLE interactions ALTER COLUMN id SET GENERATED BY DEFAULT")
        for table in GUARDED:
            connection.execute(sql.SQL("ALTER TABLE {} DISABLE TRIGGER USER").format(sql.Identifier(table)))
        try:
            yield connection
        finally:
            connection.execute("ALTER TABLE interactions ALTER COLUMN id SET GENERATED ALWAYS")
            for table in GUARDED:
                for trigger in (f"{table}_row_stays", f"{table}_stays"):
                    names = map(sql.Identifier, (table, trigger))
                    connection.execute(sql.SQL("ALTER TABLE {} ENABLE ALWAYS TRIGGER {}").format(*names))
