"""A workspace of Linear's, as its GraphQL API shows it: issues, attachments, teams, labels. No sockets, no clock.

The schema is a small part of Linear's own, with its names and types, so that a query that Linear would refuse is
refused here too. Errors have Linear's form. What is stored is plain JSON, one object for each issue.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from graphql import GraphQLError, GraphQLSchema, build_schema, execute_sync, parse, validate
from graphql.execution import ExecutionResult
from graphql.language import FieldNode, OperationDefinitionNode

Json = dict[str, Any]

TEAM = {"id": "c1a7b0de-5eed-4ab1-9f00-000000000001", "key": "LIN", "name": "Grid"}
STATES = (
    {"id": "c1a7b0de-5eed-4ab1-9f00-000000000010", "name": "Backlog", "type": "backlog"},
    {"id": "c1a7b0de-5eed-4ab1-9f00-000000000011", "name": "Todo", "type": "unstarted"},
    {"id": "c1a7b0de-5eed-4ab1-9f00-000000000012", "name": "Done", "type": "completed"},
    {"id": "c1a7b0de-5eed-4ab1-9f00-000000000013", "name": "Canceled", "type": "canceled"},
)
LABELS = (
    {"id": "c1a7b0de-5eed-4ab1-9f00-000000000020", "name": "gridgov", "color": "#4c9f70"},
    {"id": "c1a7b0de-5eed-4ab1-9f00-000000000021", "name": "incident", "color": "#c0392b"},
)
PRIORITIES = ("No priority", "Urgent", "High", "Medium", "Low")
VIEWER = {"id": "c1a7b0de-5eed-4ab1-9f00-000000000002", "name": "Grid", "email": "grid@example.invalid"}

SDL = """
scalar DateTime
scalar JSONObject

type Query {
  viewer: User!
  team(id: String!): Team!
  teams(first: Int, after: String, includeArchived: Boolean): TeamConnection!
  issue(id: String!): Issue!
  issues(filter: IssueFilter, first: Int, after: String, includeArchived: Boolean): IssueConnection!
  issueLabels(first: Int, after: String, includeArchived: Boolean): IssueLabelConnection!
  workflowStates(first: Int, after: String, includeArchived: Boolean): WorkflowStateConnection!
}

type Mutation {
  issueCreate(input: IssueCreateInput!): IssuePayload!
  issueUpdate(id: String!, input: IssueUpdateInput!): IssuePayload!
  attachmentCreate(input: AttachmentCreateInput!): AttachmentPayload!
}

type User { id: ID!  name: String!  email: String! }
type Team { id: ID!  key: String!  name: String!  states: WorkflowStateConnection! }
type WorkflowState { id: ID!  name: String!  type: String! }
type IssueLabel { id: ID!  name: String!  color: String! }
type Issue {
  id: ID!  identifier: String!  number: Float!  title: String!  description: String  priority: Float!
  priorityLabel: String!  url: String!  createdAt: DateTime!  updatedAt: DateTime!  archivedAt: DateTime
  team: Team!  state: WorkflowState!
  labels(first: Int, after: String): IssueLabelConnection!
  attachments(first: Int, after: String): AttachmentConnection!
}
type Attachment {
  id: ID!  title: String!  subtitle: String  url: String!  metadata: JSONObject!  createdAt: DateTime!
  updatedAt: DateTime!
}

type PageInfo { hasNextPage: Boolean!  endCursor: String }
type TeamConnection { nodes: [Team!]!  pageInfo: PageInfo! }
type IssueConnection { nodes: [Issue!]!  pageInfo: PageInfo! }
type IssueLabelConnection { nodes: [IssueLabel!]!  pageInfo: PageInfo! }
type WorkflowStateConnection { nodes: [WorkflowState!]!  pageInfo: PageInfo! }
type AttachmentConnection { nodes: [Attachment!]!  pageInfo: PageInfo! }

type IssuePayload { success: Boolean!  issue: Issue  lastSyncId: Float! }
type AttachmentPayload { success: Boolean!  attachment: Attachment!  lastSyncId: Float! }

input IssueIDComparator { eq: ID  neq: ID  in: [ID!]  nin: [ID!] }
input StringComparator { eq: String  contains: String  startsWith: String }
input IssueFilter { id: IssueIDComparator  title: StringComparator }

input IssueCreateInput {
  id: String  teamId: String!  title: String  description: String  priority: Int  stateId: String  labelIds: [String!]
  assigneeId: String  projectId: String  parentId: String  createdAt: DateTime
}
input IssueUpdateInput {
  title: String  description: String  priority: Int  stateId: String  labelIds: [String!]  assigneeId: String
  projectId: String  parentId: String  addedLabelIds: [String!]  removedLabelIds: [String!]
}
input AttachmentCreateInput {
  id: String  issueId: String!  title: String!  subtitle: String  url: String!  iconUrl: String  metadata: JSONObject
  commentBody: String  groupBySource: Boolean
}
"""

SCHEMA: GraphQLSchema = build_schema(SDL)


def error(message: str, code: str, kind: str, status: int, shown: str) -> Json:
    """An error as Linear puts it, one of the list `errors`; `shown` is what a person may see."""
    about = {"type": kind, "code": code, "statusCode": status, "userError": status < 500}
    return {"message": message, "extensions": {**about, "userPresentableMessage": shown}}


def _refused(message: str, shown: str, code: str = "INPUT_ERROR") -> GraphQLError:
    return GraphQLError(message, extensions=error(message, code, "invalid input", 400, shown)["extensions"])


def fields_of(query: str) -> list[str]:
    """The fields that a request asks of the root, such as `issueCreate`; empty where it is no GraphQL."""
    try:
        document = parse(query)
    except GraphQLError:
        return []
    operations = [one for one in document.definitions if isinstance(one, OperationDefinitionNode)]
    chosen = [selection for one in operations for selection in one.selection_set.selections]
    return [selection.name.value for selection in chosen if isinstance(selection, FieldNode)]


def _page(nodes: Iterable[Json], first: int | None = None, after: str | None = None) -> Json:
    """A connection; a cursor is the id of the last that was seen, and 50 come where nobody says how many."""
    found = list(nodes)
    start = next((i + 1 for i, node in enumerate(found) if node["id"] == after), 0)
    chosen = found[start : start + (50 if first is None else first)]
    more = start + len(chosen) < len(found)
    return {"nodes": chosen, "pageInfo": {"hasNextPage": more, "endCursor": chosen[-1]["id"] if chosen else None}}


def _of_id(found: Iterable[Json], id_: str, kind: str) -> Json:
    for one in found:
        if id_ in (one["id"], one.get("identifier")):
            return one
    raise _refused(f"Entity not found: {kind}", f"Could not find referenced {kind}.")


def _check_new_id(given: str | None) -> None:
    """Linear takes a client's id only as a UUID of version 4."""
    try:
        right = given is None or uuid.UUID(given).version == 4
    except ValueError:
        right = False
    if not right:
        raise _refused("Argument Validation Error", "id must be a UUID.", "INVALID_INPUT")


class Workspace:
    """Issues by id, in the order in which they were made; `changed` is told the issue after each change.

    `now` gives the time as Linear writes it, `new_id` an id where the client sends none, `address` where pages are.
    """

    def __init__(self, now: Callable[[], str], new_id: Callable[[], str], changed: Callable[[Json], None]) -> None:
        self.issues: dict[str, Json] = {}
        self.address = ""
        self._now, self._new_id, self._changed = now, new_id, changed

    def execute(self, query: str, variables: Json | None, operation: str | None) -> tuple[int, Json]:
        """The HTTP status and body of one request; 400 where it is not in the schema, else 200, perhaps with errors."""
        try:
            document = parse(query)
        except GraphQLError as wrong:
            return 400, {"errors": [_formatted(wrong, "GRAPHQL_PARSE_FAILED")]}
        wrongs = validate(SCHEMA, document)
        if wrongs:
            return 400, {"errors": [_formatted(wrong, "GRAPHQL_VALIDATION_FAILED") for wrong in wrongs]}
        root = {name: getattr(self, f"_{name}") for kind in ("Query", "Mutation") for name in _names(kind)}
        result = execute_sync(
            SCHEMA, document, root_value=root, variable_values=variables or {}, operation_name=operation or None
        )
        return self._told(result)

    def _told(self, result: ExecutionResult) -> tuple[int, Json]:
        if not result.errors:
            return 200, {"data": result.data}
        if any(wrong.path is None for wrong in result.errors):  # the variables don't fit: nothing was executed
            return 400, {"errors": [_formatted(wrong, "BAD_USER_INPUT") for wrong in result.errors]}
        wrongs = [_formatted(wrong, "INTERNAL_SERVER_ERROR") for wrong in result.errors]
        return 200, {"errors": wrongs, "data": result.data}

    # --- what can be asked ---

    def _viewer(self, info: Any) -> Json:
        return VIEWER

    def _team(self, info: Any, id: str) -> Json:
        return self._teams_known(id)

    def _teams(self, info: Any, **args: Any) -> Json:
        return _page([self._teams_known(TEAM["id"])], args.get("first"), args.get("after"))

    def _teams_known(self, id_: str) -> Json:
        team = TEAM if id_ == TEAM["key"] else _of_id([TEAM], id_, "Team")
        return {**team, "states": _page(STATES)}

    def _issue(self, info: Any, id: str) -> Json:
        return self.shown(_of_id(self.issues.values(), id, "Issue"))

    def _issues(self, info: Any, **args: Any) -> Json:
        wanted = args.get("filter") or {}
        archived = bool(args.get("includeArchived"))
        found = [one for one in self.issues.values() if archived or one["archivedAt"] is None]
        return _page((self.shown(one) for one in found if _fits(one, wanted)), args.get("first"), args.get("after"))

    def _issueLabels(self, info: Any, **args: Any) -> Json:
        return _page(LABELS, args.get("first"), args.get("after"))

    def _workflowStates(self, info: Any, **args: Any) -> Json:
        return _page(STATES, args.get("first"), args.get("after"))

    # --- what can be changed ---

    def _issueCreate(self, info: Any, input: Json) -> Json:
        _check_new_id(input.get("id"))
        team = self._teams_known(input["teamId"])
        id_ = input.get("id") or self._new_id()
        if id_ in self.issues:
            raise _refused("conflict on insert of Issue", f"Entity Issue with id {id_} already exists.")
        now, number = self._now(), len(self.issues) + 1
        issue: Json = {
            "id": id_, "identifier": f"{TEAM['key']}-{number}", "number": number, "title": "", "description": None,
            "priority": 0, "createdAt": now, "archivedAt": None, "team": team["id"], "state": STATES[0]["id"],
            "labels": [], "attachments": [],
        }  # fmt: skip
        return self._filled(issue, {**input, "title": input.get("title") or ""})

    def _issueUpdate(self, info: Any, id: str, input: Json) -> Json:
        return self._filled(dict(_of_id(self.issues.values(), id, "Issue")), input)

    def _filled(self, issue: Json, given: Json) -> Json:
        if "title" in given and not (given["title"] or "").strip():
            raise _refused("Argument Validation Error", "title should not be empty.", "INVALID_INPUT")
        if not 0 <= (given.get("priority") or 0) < len(PRIORITIES):
            raise _refused("Argument Validation Error", "priority must not be greater than 4.", "INVALID_INPUT")
        for key in ("title", "description", "priority"):
            if given.get(key) is not None:
                issue[key] = given[key]
        if given.get("stateId") is not None:
            issue["state"] = _of_id(STATES, given["stateId"], "WorkflowState")["id"]
        labels = issue["labels"] if given.get("labelIds") is None else given["labelIds"]
        gone = set(given.get("removedLabelIds") or ())
        chosen = [label for label in dict.fromkeys([*labels, *(given.get("addedLabelIds") or ())]) if label not in gone]
        issue["labels"] = [_of_id(LABELS, label, "IssueLabel")["id"] for label in chosen]
        self._keep(issue)
        return {"success": True, "issue": self.shown(issue), "lastSyncId": len(self.issues)}

    def _attachmentCreate(self, info: Any, input: Json) -> Json:
        """One attachment for each URL of an issue: made, or updated where it is there already."""
        issue = dict(_of_id(self.issues.values(), input["issueId"], "Issue"))
        now = self._now()
        known = next((one for one in issue["attachments"] if one["url"] == input["url"]), None)
        made = {"id": input.get("id") or self._new_id(), "createdAt": now} if known is None else known
        kept = {key: input.get(key) for key in ("title", "subtitle", "url")}
        attachment = {**made, **kept, "metadata": input.get("metadata") or {}, "updatedAt": now}
        others = [one for one in issue["attachments"] if one["url"] != input["url"]]
        issue["attachments"] = [*others, attachment]
        self._keep(issue)
        return {"success": True, "attachment": attachment, "lastSyncId": len(self.issues)}

    def _keep(self, issue: Json) -> None:
        issue["updatedAt"] = self._now()
        self.issues[issue["id"]] = issue
        self._changed(issue)

    def shown(self, issue: Json) -> Json:
        """An issue as its type in the schema has it."""
        labels = [label for label in LABELS if label["id"] in issue["labels"]]
        return {
            **issue,
            "priorityLabel": PRIORITIES[issue["priority"]],
            "url": f"{self.address}/issue/{issue['identifier']}",
            "team": self._teams_known(issue["team"]),
            "state": _of_id(STATES, issue["state"], "WorkflowState"),
            "labels": _page(labels),
            "attachments": _page(issue["attachments"]),
        }


def _names(kind: str) -> Iterable[str]:
    found: Any = SCHEMA.type_map[kind]
    return list(found.fields)


def _fits(issue: Json, wanted: Json) -> bool:
    """Whether an issue passes an IssueFilter."""
    of_id, of_title = wanted.get("id") or {}, wanted.get("title") or {}
    checks = (
        "eq" not in of_id or issue["id"] == of_id["eq"],
        "neq" not in of_id or issue["id"] != of_id["neq"],
        "in" not in of_id or issue["id"] in of_id["in"],
        "nin" not in of_id or issue["id"] not in of_id["nin"],
        "eq" not in of_title or issue["title"] == of_title["eq"],
        of_title.get("contains", "") in issue["title"],
        issue["title"].startswith(of_title.get("startsWith", "")),
    )
    return all(checks)


def _formatted(wrong: GraphQLError, code: str) -> Json:
    """An error of the schema's or of ours, in Linear's form."""
    found: Json = json.loads(json.dumps(wrong.formatted))
    if "extensions" not in found:
        status = 500 if code == "INTERNAL_SERVER_ERROR" else 400
        found["extensions"] = {"http": {"status": status, "headers": {}}, "code": code, "type": "graphql error"}
        found["extensions"]["userError"] = status < 500
    return found
