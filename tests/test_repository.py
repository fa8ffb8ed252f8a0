"""The repository's own rules: what may be committed, how long a function may be, and no network in tests."""

import ast
import re
import socket
import subprocess
import tomllib
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.conftest import NetworkRefused

ROOT = Path(__file__).resolve().parent.parent
MAX_BYTES = 1024 * 1024
MAX_LINES = 70

FORBIDDEN_TEXT = {
    "address of a package registry": r'"resolved": "https?:|--(extra-)?index-url|registry = "https?:'
    r"|pypi\.org|pythonhosted\.org|registry\.npmjs\.org",
    "path of a developer's machine": r"(^|[^A-Za-z0-9_.])/(work|farm|root)/[A-Za-z.]",
    "key": r"AIza[0-9A-Za-z_-]{30}|\bAQ\.[0-9A-Za-z_-]{30}|lin_api_[0-9A-Za-z]{20}",
}
FORBIDDEN_LOCKS = {"uv.lock", "poetry.lock", "pdm.lock", "yarn.lock"}
FORBIDDEN_NAMES = r"helper|util|manager"


def committed():
    """Paths that git tracks, or would after `git add .`."""
    listing = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    command = ["git", "-c", "safe.directory=*", *listing]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def modules():
    return sorted(path for part in ("gridgov", "sim", "dashboard") for path in (ROOT / part).rglob("*.py"))


def shown(path):
    return str(path.relative_to(ROOT))


def forbidden_text(content):
    """(line number, what it is) for each line that must not be committed; nothing for a binary file."""
    if b"\0" in content[:8000]:
        return []
    text = content.decode("utf-8", "replace")
    return [
        (text.count("\n", 0, match.start(0)) + 1, what)
        for what, pattern in FORBIDDEN_TEXT.items()
        for match in re.finditer(pattern, text, re.MULTILINE)
    ]


def long_functions(source):
    """(name, lines) of each function that doesn't fit on a screen."""
    return [
        (node.name, node.end_lineno - node.lineno + 1)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno + 1 > MAX_LINES
    ]


def test_commits_no_registry_address_machine_path_or_key():
    found = [
        f"{shown(path)}:{line}: {what}" for path in committed() for line, what in forbidden_text(path.read_bytes())
    ]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        '"resolved": "https' + "://example.org/x.tgz",
        "-" + "-index-url x",
        "see https://py" + "pi.org/simple",
        "cd /wo" + "rk/main",
        '"/ro' + 'ot/.cache"',
        "AI" + "za" + "x" * 35,
    ],
)
def test_finds_what_must_not_be_committed(line):
    assert forbidden_text(f"fine\n{line}\n".encode())[0][0] == 2


def test_commits_no_lock_file_that_carries_addresses():
    assert [shown(path) for path in committed() if path.name in FORBIDDEN_LOCKS] == []


def test_commits_no_large_file():
    assert [shown(path) for path in committed() if path.stat().st_size > MAX_BYTES] == []


def test_names_no_file_after_a_role_that_means_nothing():
    found = [shown(path) for path in committed() if re.search(FORBIDDEN_NAMES, path.name, re.IGNORECASE)]
    assert found == []


def test_every_module_opens_with_a_docstring():
    trees = {shown(path): ast.parse(path.read_text("utf-8")) for path in modules()}
    assert trees
    assert [name for name, tree in trees.items() if not ast.get_docstring(tree)] == []


def test_every_function_fits_on_a_screen():
    found = {shown(path): long for path in modules() if (long := long_functions(path.read_text("utf-8")))}
    assert found == {}


def test_finds_a_function_that_does_not_fit_on_a_screen():
    body = "    pass\n" * MAX_LINES
    assert long_functions("def short():\n" + body[: -len("    pass\n")]) == []
    assert long_functions("async def long():\n" + body) == [("long", MAX_LINES + 1)]


def test_lock_pins_every_dependency_with_a_hash():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    assert {Requirement(one).name.lower() for one in wanted} - locked().keys() == set()


def locked():
    """The extras of each package in the lock that is pinned with a hash."""
    blocks = re.split(r"^(?=\S)", (ROOT / "requirements.lock").read_text("utf-8"), flags=re.MULTILINE)
    pinned = [Requirement(block.partition(" ")[0]) for block in blocks if "==" in block and "--hash=sha256:" in block]
    return {one.name: one.extras for one in pinned}


def test_lock_names_every_extra():
    """Else pip, given --require-hashes, says that not everything is pinned (uv does not mind)."""
    pins = locked()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [Requirement(one) for one in project["dependencies"]]
    for name, extras in pins.items():
        with suppress(PackageNotFoundError):  # of another platform
            for text in requires(name) or []:
                one = Requirement(text)
                if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras or {""}):
                    wanted.append(one)
    with_extras = [one for one in wanted if one.extras]
    assert "google-auth" in {one.name for one in with_extras}
    assert [str(one) for one in with_extras if not one.extras <= pins[one.name]] == []


@pytest.mark.parametrize("host", ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1"])
def test_refuses_sockets_other_than_loopback(host):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as outside:
        with pytest.raises(NetworkRefused):
            outside.connect((host, 9))
        with pytest.raises(NetworkRefused):
            outside.connect_ex((host, 9))
    with (
        socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as datagram,
        pytest.raises(NetworkRefused),
    ):
        datagram.sendto(b"x", (host, 9))


def test_refuses_to_look_up_a_name_outside():
    with pytest.raises(NetworkRefused):
        socket.create_connection(("example.org", 80))


def test_allows_loopback_and_unix_sockets(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(("localhost", server.getsockname()[1])).close()
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(tmp_path / "socket"))
        server.listen()
        client.connect(str(tmp_path / "socket"))
