"""compose.yaml is checked as far as it can be without a container engine: form, images, ports, secrets."""

import re
import shutil
import subprocess

import pytest

from gridgov.cli import gridgov
from gridgov.n8n import VERSION, workflows
from tests.commands import ROOT

TEXT = (ROOT / "compose.yaml").read_text()
GUIDE = (ROOT / "n8n" / "README.md").read_text()


@pytest.fixture(scope="module")
def services():
    import yaml

    return yaml.safe_load(TEXT)["services"]


def test_every_image_is_pinned_to_a_version(services):
    images = {name: service["image"] for name, service in services.items()}
    for image in images.values():
        assert re.search(r":\d+\.\d+(\.\d+)?(-\w+)?$", image), image
    assert images["n8n"].endswith(f":{VERSION}")
    assert re.search(r"^FROM python:3\.11\.\d+-\S+$", (ROOT / "Dockerfile").read_text(), re.M)


def test_no_port_leaves_this_machine(services):
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert len(ports) == 3 and all(port.startswith("127.0.0.1:") for port in ports)


def test_no_secret_has_a_value_or_a_default():
    secret = re.compile(r"PASSWORD|ENCRYPTION_KEY|API_KEY|TOKEN|SECRET")
    for line in TEXT.splitlines():
        name, _, value = line.strip().partition(": ")
        if secret.search(name) and value:
            assert re.fullmatch(r"\$\{\w+(:\?[^}]*|:-)\}", value), line


def test_what_serves_is_watched_and_started_after_what_it_needs(services):
    serving = {name for name, service in services.items() if service["restart"] != "no"}
    assert serving == {"postgres", "app", "dashboard", "n8n"}
    for name in serving:
        assert services[name]["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    for service in services.values():
        for needed, how in service.get("depends_on", {}).items():
            assert how["condition"] == ("service_completed_successfully" if needed == "migrate" else "service_healthy")


def test_containers_run_commands_that_there_are(services):
    ours = [service["command"] for service in services.values() if "build" in service]
    for command in ours:
        context = gridgov.make_context("gridgov", [*command, "--help"], resilient_parsing=True)
        found = gridgov.get_command(context, command[0])
        options = {option for parameter in found.params for option in parameter.opts}
        assert {part for part in command if part.startswith("--")} <= options


def test_what_is_set_is_what_the_settings_read(services):
    read = set(re.findall(r'given\("(\w+)"\)', (ROOT / "gridgov" / "settings.py").read_text()))
    for name, service in services.items():
        if "build" in service:
            assert set(service["environment"]) <= read, name


def test_health_is_asked_where_there_is_an_answer(services):
    asked = {name: " ".join(service["healthcheck"]["test"]) for name, service in services.items()
             if "healthcheck" in service}  # fmt: skip
    source = (ROOT / "gridgov" / "api.py").read_text()
    path = re.search(r"127\.0\.0\.1:8080(/\w+)", asked["app"])[1]
    assert f'"{path}"' in source
    for name in ("app", "dashboard", "n8n"):
        [port] = services[name]["ports"]
        assert f"http://127.0.0.1:{port.split(':')[-1]}/" in asked[name]
    assert "wget" not in asked["n8n"] and asked["n8n"].startswith("CMD node "), "what the image has for sure"


def test_what_holds_secrets_is_kept_out_of_git():
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {".env", "workflows/"} <= set(ignored)


def test_folders_of_the_dockerfile_are_there():
    copied = re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), re.M)
    for name in " ".join(copied).split():
        assert (ROOT / name).exists(), name


def test_compose_takes_it_where_there_is_one():
    there = (
        shutil.which("docker")
        and not subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode
    )
    if not there:
        pytest.skip("there is no docker compose here")
    needed = {"POSTGRES_PASSWORD": "x", "N8N_ENCRYPTION_KEY": "y", "PATH": "/usr/local/bin:/usr/bin:/bin"}
    done = subprocess.run(
        ["docker", "compose", "config", "--quiet"], cwd=ROOT, env=needed, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_guide_names_every_workflow_credential_and_id():
    found = workflows()
    for workflow in found.values():
        assert workflow["id"] in GUIDE
        for node in workflow["nodes"]:
            for credential in node.get("credentials", {}).values():
                assert f"`{credential['name']}`" in GUIDE
    named = set(re.findall(r"^\| `([\w-]+\.json)`", GUIDE, re.M))
    assert len(named) == len(found) and all((ROOT / "n8n" / name).exists() for name in named)
