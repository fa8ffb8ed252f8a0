"""A grid with keys in a database of its own, and the app in front of it on loopback, for tests.

The template has eight actors with a million of two resources each, and a key for each scope; a test clones it.
"""

import uuid
from contextlib import contextmanager

import httpx

from gridgov import api
from gridgov.auth import Keys
from gridgov.engine import Engine
from gridgov.journal import Genesis
from gridgov.model import Actor, Constraints, Limit, Resource
from gridgov.postgres import PostgresLedger, Writer, migrate
from gridgov.serving import served

ACTORS = tuple(f"actor-{n}" for n in range(1, 9))
GENESIS = Genesis(
    1,
    1_000,
    60_000_000,
    (Actor("grid", "boundary"), *(Actor(name, "node") for name in ACTORS)),
    (Resource("energy", "kWh", 3), Resource("credits", "credit", 2)),
    Constraints(max_transfer=Limit({"energy": 50_000}, {}), hold_above=Limit({"energy": 40_000}, {})),
    tuple((name, resource, 10**8) for name in ACTORS for resource in ("energy", "credits")),
    {},
)
KEYS: dict[str, str] = {}
"""The keys of the template by their names; each is named for what it may do, `mandated` may move what actor-1 has."""


def fill(url):
    """Migrates, opens the grid with its genesis, and makes the keys."""
    migrate(url, "main")
    ledger = PostgresLedger(url, "main")
    Engine(ledger).append(GENESIS, 1_000)
    ledger.commit()
    ledger.close()
    keys = Keys(url, "main")
    with Writer(url, "main") as writer:
        for name in ("read", "propose", "operate"):
            KEYS[name] = keys.create(name, [name], 1_000)
        KEYS["mandated"] = keys.create("mandated", ["propose"], 1_000, mandate=["actor-1"], writer=writer)
    keys.close()


class Client:
    """Calls the app with a key."""

    def __init__(self, base, key="operate", app=None):
        self.http = httpx.Client(base_url=base, timeout=40, limits=httpx.Limits(max_connections=300))
        self.key = key
        self.app = app

    def ask(self, method, path, body=None, *, key=None, once=None, headers=None, content=None, **query):
        """The response; with `once` as the Idempotency-Key, and `key` instead of the client's own (False: none)."""
        nobody = f"gridgov_{'0' * 16}_{'x' * 43}"  # where no grid was made yet, as before the first test that needs one
        sent = {"Authorization": f"Bearer {KEYS.get(key or self.key, nobody)}"} if key is not False else {}
        if once is not None:
            sent["Idempotency-Key"] = once
        return self.http.request(
            method, path, json=body, content=content, params=query or None, headers={**sent, **(headers or {})}
        )

    def get(self, path, **query):
        """The JSON of what must be there."""
        return good(self.ask("GET", path, **query))

    def post(self, path, body, once=None, **query):
        """The JSON of what must be accepted."""
        return good(self.ask("POST", path, body, once=once, **query))

    def propose(self, amount=1, giver="actor-1", taker="actor-2", id_=None, key=None, **query):
        """The outcome of a proposal of one transfer of energy, under a new id or this one."""
        body = {"proposal_id": id_ or str(uuid.uuid4()), "proposal": moving(amount, giver, taker)}
        return good(self.ask("POST", "/v1/proposals", body, key=key, **query))

    def act(self, path, body, once=None, method="POST", **query):
        """The response to an act of a person; every one is a new request unless `once` says which."""
        return self.ask(method, path, {"reason": "because", **body}, once=once or str(uuid.uuid4()), **query)


def good(response):
    assert response.status_code == 200, response.text
    return response.json()


def moving(amount=1, giver="actor-1", taker="actor-2", resource="energy", reasoning="because"):
    """A proposal of one transfer."""
    transfer = {"from": giver, "to": taker, "resource": resource, "amount": amount}
    return {"transfers": [transfer], "reasoning": reasoning}


@contextmanager
def running(url, key="operate", **options):
    """A client of an app in front of a grid."""
    app = api.create(url, "main", "http://grid.example", **options)
    with served(app) as base:
        client = Client(base, key, app)
        try:
            yield client
        finally:
            client.http.close()
