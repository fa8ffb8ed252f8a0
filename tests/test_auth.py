"""Keys: what is kept of them, who they are taken for, and how soon a revoked one stops."""

import hashlib
import hmac
import threading

import psycopg
import pytest

from gridgov import auth, postgres
from gridgov.auth import SCOPES, Caller, Keys
from gridgov.errors import BadInput, Unreachable
from gridgov.journal import Registration
from gridgov.postgres import READ, Writer
from gridgov.replay import chain
from gridgov.stored import lines
from tests.apps import fill

pytest_plugins = ["tests.databases"]


@pytest.fixture(scope="module")
def template(server):
    return server.template("app", fill)


@pytest.fixture
def url(server, template):
    with server.database(template) as url:
        yield url


@pytest.fixture
def keys(url):
    keys = Keys(url, "main", fresh_s=0)
    yield keys
    keys.close()


def bearer(key):
    return f"Bearer {key}"


def stored(url, name):
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT * FROM main.keys WHERE name = %s", [name]).fetchone()


def test_keeps_of_a_key_only_the_digest_of_its_secret(keys, url):
    key = keys.create("n8n", ["propose"], 1_000)
    prefix, id_, secret = key.split("_", 2)
    assert prefix == "gridgov" and len(secret) == 43
    row = stored(url, "n8n")
    assert row[0] == id_ and row[2] == hashlib.sha256(secret.encode()).digest()
    assert secret not in str(row) and secret not in str(keys.listing())


def test_makes_each_key_anew(keys):
    assert len({keys.create(f"key-{n}", ["read"], 1) for n in range(20)}) == 20


@pytest.mark.parametrize("scope", SCOPES)
def test_knows_who_calls_and_what_for(keys, scope):
    key = keys.create("it", [scope], 1)
    assert keys.caller(bearer(key)) == Caller("it", SCOPES[scope], None)
    assert keys.caller(f"bearer  {key}") is not None


def test_scopes_imply_the_lesser_ones():
    assert SCOPES["read"] < SCOPES["propose"] < SCOPES["operate"]


def test_takes_nobody_for_somebody(keys):
    key = keys.create("it", ["read"], 1)
    id_ = key.split("_")[1]
    other = keys.create("other", ["read"], 1)
    for header in (
        None, "", key, f"Basic {key}", bearer(""), bearer(key[:-1]), bearer(key + "x"),
        bearer(f"gridgov_{id_}_{other.split('_', 2)[2]}"), bearer(f"gridgov_{'0' * 16}_{'x' * 43}"),
        bearer(key.replace("gridgov", "GRIDGOV")), bearer(f"gridgov_' OR 1=1_{'x' * 43}"),
    ):  # fmt: skip
        assert keys.caller(header) is None, header


def test_compares_in_constant_time(keys, monkeypatch):
    compared = []

    def compare(a, b):
        compared.append((a, b))
        return False

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert keys.caller(bearer(keys.create("it", ["read"], 1))) is None and len(compared) == 1


def test_a_revoked_key_stops(keys, url):
    key = keys.create("it", ["operate"], 1)
    other = Keys(url, "main", fresh_s=0.2)
    assert keys.caller(bearer(key)) == other.caller(bearer(key)) is not None
    view = keys.revoke("it", 2_000_000)
    assert view.revoked_at == "1970-01-01T00:00:02Z"
    assert keys.caller(bearer(key)) is None
    assert other.caller(bearer(key)) is not None and other.at_hand(bearer(key))
    threading.Event().wait(0.25)
    assert not other.at_hand(bearer(key)) and other.caller(bearer(key)) is None
    other.close()
    assert keys.revoke(view.id, 3_000_000) == view
    with pytest.raises(BadInput, match="keys list"):
        keys.revoke("nobody", 1)


def test_remembers_a_key_for_a_while_and_no_more_than_some(url, monkeypatch):
    monkeypatch.setattr(auth, "REMEMBERED", 5)
    keys = Keys(url, "main", fresh_s=100)
    key = bearer(keys.create("it", ["read"], 1))
    assert not keys.at_hand(key) and keys.caller(key) is not None and keys.at_hand(key)
    for n in range(5):
        assert keys.caller(bearer(f"gridgov_{n:016x}_{'x' * 43}")) is None
    assert not keys.at_hand(key) and keys.at_hand("nonsense")
    keys.close()


@pytest.mark.parametrize("name", ["", " x", "x ", "a\nb", "x" * 101, "planner", "grid", "a\x00b", "\ud800"])
def test_refuses_a_name_that_is_none(keys, name):
    with pytest.raises(BadInput):
        keys.create(name, ["read"], 1)


def test_refuses_a_scope_that_is_none(keys):
    with pytest.raises(BadInput, match="did you mean 'propose'"):
        keys.create("it", ["proposes"], 1)
    with pytest.raises(BadInput, match="needs a scope"):
        keys.create("it", [], 1)


def test_never_gives_a_name_twice(keys):
    keys.create("it", ["read"], 1)
    keys.revoke("it", 2)
    with pytest.raises(BadInput, match="never used again"):
        keys.create("it", ["read"], 3)
    assert [view.name for view in keys.listing()].count("it") == 1


def test_lists_keys_without_their_secrets(keys):
    with_mandate = next(view for view in keys.listing() if view.name == "mandated")
    assert (with_mandate.scopes, with_mandate.mandate, with_mandate.revoked_at) == (("propose",), ("actor-1",), None)


def test_journals_a_mandate_under_the_name_of_its_key(keys, url):
    with Writer(url, "main") as writer:
        key = keys.create("shop", ["propose"], 5_000, mandate=["actor-2", "actor-1"], writer=writer, operator="mia")
        with pytest.raises(BadInput, match="no actor 'nobody'"):
            keys.create("x", ["propose"], 5_000, mandate=["nobody"], writer=writer)
        with pytest.raises(BadInput, match="no actor 'grid'"):
            keys.create("y", ["propose"], 5_000, mandate=["grid"], writer=writer)
        with pytest.raises(BadInput, match="never used again"):
            keys.create("shop", ["propose"], 5_000, mandate=["actor-3"], writer=writer)
    assert keys.caller(bearer(key)).mandate == frozenset({"actor-1", "actor-2"})
    connection = postgres.connect(url, "main", READ)
    last = list(chain(lines(connection)))[-1].payload
    connection.close()
    assert isinstance(last, Registration)
    assert dict(last.mandates) == {"shop": ("actor-1", "actor-2")} and last.operator == "mia"
    assert stored(url, "x") is None and stored(url, "y") is None


def test_the_reading_role_sees_no_key(url):
    connection = postgres.connect(url, "main", READ)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("SELECT * FROM keys")
    connection.close()


def test_says_that_the_database_is_away():
    keys = Keys("postgresql://nobody@127.0.0.1:1/none", "main")
    with pytest.raises(Unreachable):
        keys.caller(bearer(f"gridgov_{'0' * 16}_{'x' * 43}"))
    assert keys.caller("Bearer nonsense") is None
    keys.close()
