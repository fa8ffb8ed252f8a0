"""A Postgres for a session of tests, and databases of their own for its tests: `pytest_plugins = ["tests.databases"]`.

A test that needs tables clones a template, which is filled once for each session and costs a test some milliseconds:

    @pytest.fixture(scope="session")
    def migrated(server):
        return server.template("migrated", migrate)  # migrate(url) creates the tables, and closes what it opened

    @pytest.fixture
    def url(server, migrated):
        with server.database(migrated) as url:
            yield url

PYTEST_DONT_REWRITE: a test module may import this one before pytest does.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from gridgov.embedded import Embedded, programs
from gridgov.errors import BadInput

ROOM = 2 << 30
"""So many bytes free in memory, and servers keep their files there: a busy disk makes the tests take twice as long."""


class Server:
    """A running Postgres, whose databases are not kept through a power cut."""

    def __init__(self, embedded: Embedded) -> None:
        self.embedded = embedded
        self._numbers = count(1)
        self._templates: set[str] = set()

    def url(self, name: str = "postgres") -> str:
        """Where the superuser connects to the database."""
        return make_conninfo(self.embedded.url, dbname=name)

    def execute(self, statement: str, *names: str) -> None:
        """Runs one statement outside a transaction, with the names in place of its `{}`."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def template(self, name: str, fill: Callable[[str], object], template: str = "template0") -> str:
        """The name of a database to clone; `fill(url)` fills it when it is first asked for."""
        if name not in self._templates:
            self.execute("CREATE DATABASE {} TEMPLATE {}", name, template)
            fill(self.url(name))
            self._templates.add(name)
        return name

    @contextmanager
    def database(self, template: str = "template0") -> Iterator[str]:
        """The URL of a database that is a clone of the template and is dropped at the end, whoever is connected."""
        name = f"test_{next(self._numbers)}"
        self.execute("CREATE DATABASE {} TEMPLATE {}", name, template)
        try:
            yield self.url(name)
        finally:
            self.execute("DROP DATABASE {} WITH (FORCE)", name)


def processes_in(folder: Path) -> list[int]:
    """The processes that work in the folder or below it, as a server of data there does (Linux)."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if Path(os.readlink(process / "cwd")).is_relative_to(folder):
                found.append(int(process.name))
    return found


@contextmanager
def new_place() -> Iterator[Path]:
    """A folder that every user can enter, unlike those of `tmp_path`; no process may be left in it at the end."""
    in_memory = Path("/dev/shm").is_dir() and shutil.disk_usage("/dev/shm").free > ROOM
    place = Path(tempfile.mkdtemp(prefix="gridgov-test-", dir="/dev/shm" if in_memory else None)).resolve()
    place.chmod(0o711)
    try:
        yield place
        deadline = time.monotonic() + 10
        while (left := processes_in(place)) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not left, f"processes {left} still run in {place}"
    finally:
        shutil.rmtree(place)


@pytest.fixture
def place():
    """Where a test may keep the folders of servers."""
    with new_place() as place:
        yield place


@pytest.fixture(scope="session")
def postgres():
    """The folder of Postgres's programs; a test that needs them is skipped where there are none, and fails in CI."""
    try:
        return programs()
    except BadInput as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def server(postgres):
    """The server of the session."""
    with new_place() as place, Embedded(place / "server", durable=False) as embedded:
        yield Server(embedded)


@pytest.fixture
def database(server):
    """The URL of an empty database for one test."""
    with server.database() as url:
        yield url
