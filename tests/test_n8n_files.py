"""The workflows as files: what n8n of any installation can run, and what is compared with what runs."""

import json
import re
import sqlite3
from contextlib import closing
from copy import deepcopy

import pytest

from gridgov import n8n
from gridgov.errors import BadInput, GridgovError
from tests.n8n import LINEAR_KEY, TARGET

pytest_plugins = ["tests.n8n"]

WORKFLOWS = n8n.workflows()
PORTABLE = {
    "crypto", "errorTrigger", "executeWorkflow", "executeWorkflowTrigger", "httpRequest", "if", "manualTrigger",
    "merge", "respondToWebhook", "scheduleTrigger", "set", "splitOut", "stickyNote", "stopAndError", "webhook",
}  # fmt: skip
VERBS = {
    "Acknowledge", "Answer", "Ask", "Call", "Catch", "Check", "Close", "Create", "Find", "Get", "Hash", "Join", "List",
    "Look", "Name", "Note", "Post", "Receive", "Refuse", "Report", "Return", "Run", "Sign", "Start", "Stop", "Submit",
    "Take", "Update", "Write",
}  # fmt: skip


def nodes(kind):
    return [node for workflow in WORKFLOWS.values() for node in workflow["nodes"] if node["type"].endswith(f".{kind}")]


@pytest.mark.parametrize("workflow", WORKFLOWS.values(), ids=lambda workflow: workflow["name"])
def test_workflow_runs_in_any_n8n(workflow):
    steps = [node for node in workflow["nodes"] if not node["type"].endswith(".stickyNote")]
    assert {node["type"].removeprefix("n8n-nodes-base.") for node in workflow["nodes"]} <= PORTABLE
    assert [node["name"] for node in steps].count("Config") == 1
    assert len(workflow["nodes"]) > len(steps), "a sticky note for each section"
    assert {node["name"].split()[0] for node in steps if node["name"] != "Config"} <= VERBS
    ids = [node["id"] for node in workflow["nodes"]]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z]{2}-\d\d", id_) for id_ in ids)
    assert set(workflow) == {"id", "name", "active", "nodes", "connections", "settings", "pinData", "tags"}
    assert (workflow["active"], workflow["pinData"]) == (False, {})
    text = json.dumps(workflow)
    assert not re.search(r"\$env|\$vars|neverError|\$helpers|error\.options|error\.headers", text)
    named = {node["name"] for node in workflow["nodes"]}
    assert set(re.findall(r"\$\('([^']+)'\)", text)) <= named
    assert {
        target["node"] for kinds in workflow["connections"].values() for outputs in kinds["main"] for target in outputs
    } <= named


def test_every_call_is_bounded_and_authenticated_and_follows_nobody():
    assert len(nodes("httpRequest")) > 15
    for node in nodes("httpRequest"):
        parameters = node["parameters"]
        assert node["typeVersion"] == 4.2
        assert parameters["authentication"] == "predefinedCredentialType", "else a failure keeps the key in its record"
        assert set(node["credentials"]) == {parameters["nodeCredentialType"]}
        assert parameters["options"]["timeout"] <= 120_000
        assert parameters["options"]["redirect"]["redirect"]["followRedirects"] is False
        assert node["name"] == "Create Issue" or node["retryOnFail"], "whether it was created is looked up instead"


def test_every_credential_is_known_by_name_and_locked_to_its_host():
    made = {one["name"]: one for one in n8n.credentials(TARGET._replace(linear_url="https://api.linear.app/graphql"))}
    used = {one["name"]: one["id"] for workflow in WORKFLOWS.values() for node in workflow["nodes"]
            for one in node.get("credentials", {}).values()}  # fmt: skip
    assert used == {name: one["id"] for name, one in made.items()}
    assert made["gridgov: Linear"]["data"]["allowedDomains"] == "api.linear.app"
    assert {one["data"].get("allowedHttpRequestDomains") for one in made.values()} == {"domains", "none", None}
    assert "allowedHttpRequestDomains" not in made["gridgov: meters"]["data"], "it is sent nowhere"


def test_failures_are_told_but_not_those_of_telling():
    without = {id_ for id_, workflow in WORKFLOWS.items() if "errorWorkflow" not in workflow["settings"]}
    assert without == {"gridgovErrors", "gridgovWriteUp", "gridgovAsk"}
    kept = {id_ for id_, workflow in WORKFLOWS.items() if workflow["settings"]["saveDataErrorExecution"] == "all"}
    assert kept == set(WORKFLOWS) - {"gridgovAsk"}


def test_config_and_schedule_are_patched_by_name_and_hold_no_key():
    target = TARGET._replace(app_url="http://app.example/", linear="daily", every_minutes=30, sync_minutes=120)
    made = {id_: n8n.patched(workflow, target) for id_, workflow in WORKFLOWS.items()}
    text = json.dumps(made)
    for key in (target.app_key, target.webhook_token, target.meter_secret, target.gemini_key, LINEAR_KEY):
        assert key not in text
    [config] = [node for node in made["gridgovLoop"]["nodes"] if node["name"] == "Config"]
    values = {one["name"]: one["value"] for one in config["parameters"]["assignments"]["assignments"]}
    assert values == {"app_url": "http://app.example", "linear": "daily"}
    rules = {id_: node["parameters"]["rule"]["interval"] for id_, workflow in made.items()
             for node in workflow["nodes"] if node["type"].endswith(".scheduleTrigger")}  # fmt: skip
    assert rules == {
        "gridgovLoop": [{"field": "minutes", "minutesInterval": 30}],
        "gridgovOutbox": [{"field": "hours", "hoursInterval": 2}],
    }


@pytest.mark.parametrize("change", [{"every_minutes": 0}, {"every_minutes": 90}, {"linear": "some"}])
def test_target_that_cannot_be_is_refused(change):
    with pytest.raises(BadInput):
        n8n.patched(WORKFLOWS["gridgovLoop"], TARGET._replace(**change))


@pytest.mark.parametrize("change", [{"gemini_key": ""}, {"app_url": "nowhere"}])
def test_keys_that_are_missing_or_lead_nowhere_are_refused(change):
    with pytest.raises(BadInput):
        n8n.credentials(TARGET._replace(**change))


def test_install_that_is_not_there_says_what_to_run(tmp_path):
    with pytest.raises(BadInput, match="run: make n8n"):
        n8n.check_installed(tmp_path)


def live():
    return [{**deepcopy(workflow), "active": True} for workflow in WORKFLOWS.values()]


def node_of(workflows, id_, name):
    [workflow] = [one for one in workflows if one["id"] == id_]
    return next(node for node in workflow["nodes"] if node["name"] == name)


def test_difference_is_named_by_workflow_and_node():
    repo = list(WORKFLOWS.values())
    assert n8n.differences(live(), repo) == []
    found = live()
    node_of(found, "gridgovLoop", "Close Epoch")["parameters"]["method"] = "GET"
    node_of(found, "gridgovLoop", "Config")["parameters"]["assignments"]["assignments"][0]["value"] = "of this place"
    node_of(found, "gridgovLoop", "Get Context")["position"] = [0, 0]
    assert n8n.differences(found, repo) == [
        'gridgov: governance loop: node Close Epoch: parameters.method is "GET", and in the repository "POST"'
    ]


def test_every_kind_of_difference_is_told():
    found = {one["id"]: one for one in live()}
    found["gridgovErrors"]["active"] = False
    del found["gridgovAsk"]
    found["gridgovLoop"]["settings"]["timezone"] = "Europe/Berlin"
    meter = found["gridgovMeter"]
    meter["nodes"] = [node for node in meter["nodes"] if node["name"] != "Join Body"]
    del meter["connections"]["Join Body"]
    del found["gridgovOutbox"]["connections"]["Take Next"]
    told = n8n.differences(found.values(), WORKFLOWS.values())
    assert sorted(told) == [
        "gridgov: ask Gemini: is not in n8n",
        'gridgov: governance loop: settings: timezone is "Europe/Berlin", and in the repository "UTC"',
        "gridgov: meter readings: Join Body (main 0) to Post Readings (0) is not connected",
        "gridgov: meter readings: node Join Body is missing",
        "gridgov: on error: is in n8n, but not published, so it does not run",
        "gridgov: outbox sync: Take Next (main 0) to Get Page (0) is not connected",
    ]


def test_what_was_imported_is_what_is_in_the_repository(prefix, prepared):
    found = n8n.exported(prepared, prefix)
    for workflow in found:
        for node in workflow["nodes"]:  # the session's own changes, see `tests.n8n.hasty`
            node.pop("disabled", None)
            if node["type"].endswith(".httpRequest") and "waitBetweenTries" in node:
                node["waitBetweenTries"] = node_of(WORKFLOWS.values(), workflow["id"], node["name"])["waitBetweenTries"]
    assert n8n.differences(found, WORKFLOWS.values()) == []


def kept(home, id_, published):
    """Writes the rows of a workflow as n8n keeps them, in its version v."""
    (home / ".n8n").mkdir()
    with closing(sqlite3.connect(home / ".n8n" / "database.sqlite")) as database, database:
        database.execute("CREATE TABLE workflow_entity (id, versionId, active, activeVersionId)")
        database.execute("CREATE TABLE workflow_history (workflowId, versionId)")
        row = (id_, "v", published, "v" if published else None)
        database.execute("INSERT INTO workflow_entity VALUES (?, ?, ?, ?)", row)
        database.execute("INSERT INTO workflow_history VALUES (?, 'v')", (id_,))


def test_workflow_that_n8n_did_not_take_is_named_and_none_is_published(tmp_path):
    kept(tmp_path, "a", published=False)
    with pytest.raises(GridgovError, match="n8n did not take the workflow b"):
        n8n._publish(tmp_path, ["a", "b"])
    with closing(sqlite3.connect(tmp_path / ".n8n" / "database.sqlite")) as database:
        assert database.execute("SELECT active, activeVersionId FROM workflow_entity").fetchall() == [(0, None)]


def test_import_that_fails_leaves_in_force_what_was(tmp_path, monkeypatch):
    id_ = next(iter(WORKFLOWS.values()))["id"]
    kept(tmp_path, id_, published=True)

    def failing(home, prefix, name, *arguments, given=None):
        with closing(sqlite3.connect(home / ".n8n" / "database.sqlite")) as database:
            was = database.execute("SELECT active FROM workflow_entity").fetchone()
        if name == "import:workflow":
            assert was == (0,), "n8n refuses to import over what is in force"
            raise GridgovError("n8n import:workflow failed")

    monkeypatch.setattr(n8n, "_command", failing)
    monkeypatch.setattr(n8n, "check_installed", lambda prefix: None)
    with pytest.raises(GridgovError, match="import:workflow failed"):
        n8n.prepare(tmp_path, TARGET, tmp_path)
    with closing(sqlite3.connect(tmp_path / ".n8n" / "database.sqlite")) as database:
        assert database.execute("SELECT active, activeVersionId FROM workflow_entity").fetchall() == [(1, "v")]


def test_database_of_n8n_that_cannot_be_changed_is_named(tmp_path):
    (tmp_path / ".n8n").mkdir()
    (tmp_path / ".n8n" / "database.sqlite").write_bytes(b"no database " * 100)
    with pytest.raises(GridgovError, match=r"n8n's database cannot be changed.*stop the n8n"):
        n8n._publish(tmp_path, ["a"])


def test_n8n_that_cannot_start_says_why(prefix, tmp_path):
    (tmp_path / ".n8n").mkdir()
    (tmp_path / ".n8n" / "database.sqlite").write_bytes(b"no database " * 100)
    with pytest.raises(GridgovError, match="n8n did not come up"), n8n.running(tmp_path, prefix):
        pass
