"""The stub of Linear behaves as Linear does where our workflows can tell; its pages run nothing of what it was sent."""

import json
import subprocess
import sys
import threading
import uuid

import httpx
import pytest

from gridgov.errors import BadInput
from sim.stubs.linear import FAULTS, KEY, Fault, Script, Stub, faults
from sim.stubs.linear_pages import age, issue_page
from tests.commands import ROOT

ID = "0b9f3a52-4e1d-4c8b-9a67-1f2e3d4c5b6a"
CREATE = """mutation Create($input: IssueCreateInput!) {
  issueCreate(input: $input) { success issue { id identifier url title priorityLabel state { name } } }
}"""
UPDATE = "mutation Update($id: String!, $input: IssueUpdateInput!) { issueUpdate(id: $id, input: $input) { success } }"
FIND = "query Find($id: ID!) { issues(filter: {id: {eq: $id}}, includeArchived: true) { nodes { id title } } }"
ATTACH = "mutation Attach($input: AttachmentCreateInput!) { attachmentCreate(input: $input) { attachment { id } } }"


class Asking:
    """A client of a stub."""

    def __init__(self, stub, key=KEY):
        self.stub, self.headers = stub, {"Authorization": key} if key else {}

    def send(self, query, timeout=20, **variables):
        body = {"query": query, "variables": variables}
        return httpx.post(self.stub.url, json=body, headers=self.headers, timeout=timeout)

    def create(self, id_=ID, title="Executed", **more):
        return self.send(CREATE, input={"teamId": self.stub.team, "id": id_, "title": title, **more})

    def find(self, id_=ID):
        return self.send(FIND, id=id_).json()["data"]["issues"]["nodes"]


@pytest.fixture
def stub():
    with Stub() as stub:
        yield stub


@pytest.fixture
def ask(stub):
    return Asking(stub)


def errors(response):
    return [(wrong["extensions"]["code"], wrong["message"]) for wrong in response.json()["errors"]]


def test_issue_is_created_found_updated_and_attached_to(stub, ask):
    assert ask.find() == []
    made = ask.create(description="because", priority=2).json()["data"]["issueCreate"]
    assert made["success"] and made["issue"]["identifier"] == "LIN-1" and made["issue"]["priorityLabel"] == "High"
    assert ask.find() == [{"id": ID, "title": "Executed"}]
    assert ask.send(UPDATE, id=ID, input={"title": "Rejected", "priority": 3}).json()["data"]["issueUpdate"]["success"]
    attachment = {"issueId": ID, "title": "Ledger entry 7", "url": "http://grid.example/ledger?entry=7"}
    first, second = (ask.send(ATTACH, input=attachment).json()["data"]["attachmentCreate"] for _ in range(2))
    assert first == second, "an attachment is one for each URL of an issue"
    [issue] = stub.issues.values()
    assert (issue["title"], issue["description"], issue["priority"]) == ("Rejected", "because", 3)
    assert [one["url"] for one in issue["attachments"]["nodes"]] == [attachment["url"]]
    assert httpx.get(issue["url"]).status_code == 200


def test_issue_and_attachment_can_be_made_in_one_request(stub, ask):
    both = """mutation Both($issue: IssueCreateInput!, $link: AttachmentCreateInput!) {
      issueCreate(input: $issue) { success } attachmentCreate(input: $link) { success }
    }"""
    link = {"issueId": ID, "title": "Entry", "url": "http://grid.example/1"}
    sent = ask.send(both, issue={"id": ID, "teamId": stub.team, "title": "T"}, link=link).json()
    assert sent == {"data": {"issueCreate": {"success": True}, "attachmentCreate": {"success": True}}}
    again = ask.send(
        both, issue={"id": ID, "teamId": stub.team, "title": "U"}, link={**link, "url": "http://x.example"}
    )
    assert again.json()["data"] is None
    assert stub.issues[ID]["title"] == "T"


@pytest.mark.parametrize("status", [200, 400])
def test_duplicate_id_is_refused_and_changes_nothing(status):
    with Stub(refused=status) as stub:
        ask = Asking(stub)
        ask.create(title="first")
        again = ask.create(title="second")
        assert again.status_code == status
        assert errors(again) == [("INPUT_ERROR", "conflict on insert of Issue")]
        assert "already exists" in again.json()["errors"][0]["extensions"]["userPresentableMessage"]
        assert stub.issues[ID]["title"] == "first"


def test_of_sixteen_that_create_the_same_issue_at_once_one_does(stub, ask):
    found = []
    threads = [threading.Thread(target=lambda n=n: found.append(ask.create(title=str(n)))) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted("errors" in one.json() for one in found) == [False] + [True] * 15
    assert len(stub.issues) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"id": "no-uuid"}, "id must be a UUID."),
        ({"id": str(uuid.uuid5(uuid.NAMESPACE_DNS, "x"))}, "id must be a UUID."),
        ({"title": " "}, "title should not be empty."),
        ({"priority": 5}, "priority must not be greater than 4."),
        ({"teamId": "elsewhere"}, "Could not find referenced Team."),
        ({"stateId": "elsewhere"}, "Could not find referenced WorkflowState."),
        ({"labelIds": ["elsewhere"]}, "Could not find referenced IssueLabel."),
    ],
)
def test_input_that_linear_refuses_is_refused_and_makes_no_issue(stub, ask, given, message):
    refused = ask.send(CREATE, input={"teamId": stub.team, "id": ID, "title": "T", **given})
    assert refused.json()["errors"][0]["extensions"]["userPresentableMessage"] == message
    assert stub.issues == {}


@pytest.mark.parametrize(
    ("query", "variables"),
    [
        ("{ nothing }", {}),
        ("mutation {", {}),
        (FIND, {}),
        (CREATE, {"input": {"title": "T", "colour": "red"}}),
        (7, {}),
    ],
)
def test_request_that_the_schema_does_not_know_is_400(stub, ask, query, variables):
    assert ask.send(query, **variables).status_code == 400
    assert stub.issues == {}


def test_teams_labels_states_and_viewer_are_told(stub, ask):
    asked = "{ viewer { name } teams { nodes { id states { nodes { type } } } } issueLabels { nodes { name } } }"
    told = ask.send(asked).json()["data"]
    assert [team["id"] for team in told["teams"]["nodes"]] == [stub.team]
    assert {label["name"] for label in told["issueLabels"]["nodes"]} == {"gridgov", "incident"}
    assert {state["type"] for state in told["teams"]["nodes"][0]["states"]["nodes"]} >= {"backlog", "completed"}
    assert ask.send('{ team(id: "LIN") { name } }').json()["data"]["team"]["name"]
    assert ask.send("{ workflowStates { nodes { id } } }").status_code == 200
    assert errors(ask.send('{ issue(id: "LIN-1") { id } }')) == [("INPUT_ERROR", "Entity not found: Issue")]


def test_issues_come_in_pages_and_by_title(stub, ask):
    for n in range(5):
        ask.create(str(uuid.uuid4()), title=f"issue {n}")
    page = """query Page($after: String) {
      issues(first: 2, after: $after) { nodes { title } pageInfo { hasNextPage endCursor } }
    }"""
    seen, after, more = [], None, True
    while more:
        found = ask.send(page, after=after).json()["data"]["issues"]
        seen += [one["title"] for one in found["nodes"]]
        after, more = found["pageInfo"]["endCursor"], found["pageInfo"]["hasNextPage"]
    assert seen == [f"issue {n}" for n in range(5)]
    of = '{ issues(filter: {title: {contains: "issue 3"}}) { nodes { title } } }'
    assert ask.send(of).json()["data"]["issues"]["nodes"] == [{"title": "issue 3"}]


def test_labels_are_set_added_and_removed(stub, ask):
    labels = [one["id"] for one in ask.send("{ issueLabels { nodes { id } } }").json()["data"]["issueLabels"]["nodes"]]
    ask.create(labelIds=labels[:1])
    ask.send(UPDATE, id=ID, input={"addedLabelIds": labels[1:], "removedLabelIds": labels[:1]})
    assert [one["id"] for one in stub.issues[ID]["labels"]["nodes"]] == labels[1:]


@pytest.mark.parametrize(
    ("key", "status"),
    [(None, 401), ("wrong", 401), ("Bearer lin_api_x", 400), ("lin_api_x", 200), ("Bearer token", 200)],
)
def test_key_is_asked_for_as_linear_does(stub, key, status):
    answer = Asking(stub, key).send("{ viewer { id } }")
    assert answer.status_code == status
    if status != 200:
        assert errors(answer)[0][0] == "AUTHENTICATION_ERROR"


def test_only_the_key_that_was_set_is_taken_and_none_is_kept():
    with Stub(key="lin_api_marked") as stub:
        assert Asking(stub, "lin_api_other").send("{ viewer { id } }").status_code == 401
        assert Asking(stub, "lin_api_marked").send("{ viewer { id } }").status_code == 200
        kept = json.dumps(stub.sent)
    assert "lin_api" not in kept and "viewer" in kept


# --- faults -----------------------------------------------------------------------------------------------------------

STATUS = {
    "503": 503, "503 html": 503, "500": 500, "502": 502, "429": 429, "ratelimited": 400, "400": 400, "401": 401,
    "errors": 200, "html 200": 200, "empty 200": 200, "slow": 200, "late": 200, "503 after": 503,
}  # fmt: skip
DONE = {"slow", "late", "503 after", "dropped after", "silent after"}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_answered_as_it_says_and_does_what_it_says(name):
    with Stub([{"reply": name, "delay_s": 0.01}]) as stub:
        ask = Asking(stub)
        if name in STATUS:
            assert ask.create().status_code == STATUS[name]
        else:
            with pytest.raises(httpx.TransportError):
                ask.send(CREATE, 2, input={"teamId": stub.team, "id": ID, "title": "T"})
        assert (ID in stub.issues) == (name in DONE)
        assert [one["reply"] for one in stub.sent] == [name]
        assert ask.send("{ viewer { id } }").status_code == 200, "it comes once"


def test_throttling_has_linears_form():
    with Stub(["ratelimited", "429"]) as stub:
        ask = Asking(stub)
        assert errors(ask.create()) == [("RATELIMITED", "Rate limit exceeded")]
        assert ask.create().headers["Retry-After"] == "1"


def test_fault_is_for_the_requests_that_it_names():
    first = Fault("503", field="issueCreate", text="second", skip=1)
    with Stub([first, {"reply": "429", "times": 2, "field": "viewer"}]) as stub:
        ask = Asking(stub)
        assert ask.create(str(uuid.uuid4()), "first").status_code == 200
        assert [ask.create(str(uuid.uuid4()), "second").status_code for _ in range(3)] == [200, 503, 200]
        assert [ask.send("{ viewer { id } }").status_code for _ in range(3)] == [429, 429, 200]


def test_fault_for_a_time_comes_only_then():
    with Stub([Fault("503", None, until_s=3_600), Fault("429", None, from_s=3_600)]) as stub:
        assert Asking(stub).create().status_code == 503
    with Stub([Fault("503", None, from_s=3_600)]) as stub:
        assert Asking(stub).create().status_code == 200


def test_faults_by_chance_are_those_of_the_seed():
    def of_seed(seed):
        script = Script([{"reply": "503", "times": "ever", "chance": 0.3}], seed)
        return [script.next(n, ["viewer"], "", 0.0) is not None for n in range(1, 101)]

    first = of_seed(1)
    assert first == of_seed(1) != of_seed(2)
    assert 10 < sum(first) < 55


def test_faults_are_added_and_taken_back_while_it_runs(stub, ask):
    stub.fail({"reply": "503", "times": "ever"})
    assert [ask.create().status_code for _ in range(3)] == [503] * 3
    stub.heal()
    assert ask.create().status_code == 200
    assert stub.count == 4


@pytest.mark.parametrize(
    ("script", "hint"),
    [
        (["504"], "unknown fault"),
        ([{"reply": "503", "tmies": 2}], "did you mean 'times'"),
        ([{"times": "two"}], "can't be"),
    ],
)
def test_wrong_script_is_refused_with_the_place(script, hint):
    with pytest.raises(BadInput, match=hint):
        faults(script)


# --- pages, and what is kept ------------------------------------------------------------------------------------------

HOSTILE = """# Verdict
<script>alert(1)</script> <img src=x onerror=alert(1)>

| a | b |
| --- | --- |
| `1` | <b>2</b> |

[run](javascript:alert(1)) [data](data:text/html,<script>) ![pixel](http://elsewhere.example/pixel.png)
</pre></body>
"""


def test_pages_show_issues_and_run_nothing_of_what_they_were_sent(stub, ask):
    ask.create(title="<script>alert('title')</script>", description=HOSTILE, priority=1)
    for title, url in (("<i>Entry</i>", "javascript:alert(2)"), ("Entry", "http://grid.example/ledger?entry=1")):
        ask.send(ATTACH, input={"issueId": ID, "title": title, "url": url})
    for path in ("/", "/issue/LIN-1", f"/issue/{ID}"):
        page = httpx.get(stub.page + path)
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
        for markup in ("<script", "<img", "<b>2", "<i>", 'href="javascript:', 'href="data:'):
            assert markup not in page.text, (path, markup)
    assert "<td><code>1</code></td>" in page.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.text
    assert 'href="http://grid.example/ledger?entry=1"' in page.text
    shown = httpx.get(stub.page).text
    assert "Urgent" in shown and "LIN-1" in shown and "1 issues" in shown
    assert httpx.get(stub.page + "/issue/LIN-9").status_code == 404
    assert httpx.put(stub.page).status_code == 405


def test_issue_without_a_description_is_shown(stub, ask):
    ask.create()
    assert "(no description)" in issue_page(stub.issues[ID])


def test_age_is_in_the_largest_unit_that_fits():
    now = "2026-01-03T00:00:00.000Z"
    since = ("2026-01-02T23:59:30.000Z", "2026-01-02T23:57:00.000Z", "2026-01-02T20:00:00.000Z", "2026-01-01T00:00:00Z")
    assert [age(then, now) for then in since] == ["30 s", "3 min", "4 h", "2 d"]


def test_what_was_sent_is_listed_as_json(stub, ask):
    ask.create()
    told = httpx.get(f"{stub.page}/requests").json()
    assert told["count"] == 1
    [sent] = told["requests"]
    assert sent["fields"] == ["issueCreate"] and sent["body"]["variables"]["input"]["id"] == ID
    assert sent["status"] == 200 and "authorization" not in sent["headers"]
    assert httpx.get(f"{stub.page}/issues").json()["issues"][0]["id"] == ID


def test_issues_are_there_again_after_a_restart(tmp_path):
    keep = tmp_path / "kept" / "linear.jsonl"
    with Stub(keep=keep) as stub:
        Asking(stub).create(title="first")
        before = stub.issues[ID]
    with keep.open("a") as file:
        file.write('{"issue": {"id"')  # killed in the middle of a line
    with Stub(keep=keep) as stub:
        assert {**stub.issues[ID], "url": ""} == {**before, "url": ""}
        Asking(stub).create(str(uuid.uuid4()))
        assert "already exists" in Asking(stub).create().text
        assert [one["identifier"] for one in stub.issues.values()] == ["LIN-1", "LIN-2"]
    with Stub(keep=keep) as stub:
        assert len(stub.issues) == 2
    assert "lin_api" not in keep.read_text()


def test_command_says_where_it_answers_and_ends_when_it_is_interrupted(tmp_path):
    script = tmp_path / "script.json"
    script.write_text('["503"]')
    process = subprocess.Popen(
        [sys.executable, "-m", "sim.stubs.linear", "--port", "0", "--script", script],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    try:
        url = process.stdout.readline().split()[6].rstrip(",")
        settings = process.stdout.readline()
        assert f"GRIDGOV_LINEAR_URL={url}" in settings
        asked, key = {"query": "{ viewer { id } }"}, {"Authorization": KEY}
        assert [httpx.post(url, json=asked, headers=key).status_code for _ in range(2)] == [503, 200]
        process.send_signal(2)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()


def test_command_refuses_a_script_that_is_none(tmp_path):
    (tmp_path / "script.json").write_text("{}")
    said = subprocess.run(
        [sys.executable, "-m", "sim.stubs.linear", "--script", tmp_path / "script.json"],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert said.returncode == 1
    assert "expected a JSON list of faults" in said.stderr and "Traceback" not in said.stderr
