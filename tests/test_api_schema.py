"""What `/openapi.json` says is what the app does: whatever is sent, nothing breaks and no status comes unannounced."""

import json
import uuid

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.apps import KEYS, fill, running

pytest_plugins = ["tests.databases"]

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
    ignored_auth,
]
ENDPOINTS = {
    ("GET", "/v1/world-state"), ("GET", "/v1/context"), ("POST", "/v1/proposals"), ("GET", "/v1/proposals"),
    ("GET", "/v1/proposals/{proposal_id}"), ("GET", "/v1/ledger"), ("GET", "/v1/ledger/{id}"), ("GET", "/v1/journal"),
    ("POST", "/v1/proposals/{proposal_id}/approve"), ("POST", "/v1/proposals/{proposal_id}/reject"),
    ("POST", "/v1/proposals/{proposal_id}/reverse"), ("POST", "/v1/transfers"), ("POST", "/v1/ledger/{id}/reverse"),
    ("POST", "/v1/control"), ("PUT", "/v1/constraints"), ("POST", "/v1/actors"), ("PATCH", "/v1/actors/{id}"),
    ("POST", "/v1/activations"), ("POST", "/v1/flows"), ("POST", "/v1/epochs/close"), ("GET", "/v1/outbox"),
    ("GET", "/v1/digests"), ("GET", "/v1/digests/{day}"),
    ("POST", "/v1/outbox/{seq}/ack"), ("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/healthz/loop"),
    ("GET", "/metrics"), ("GET", "/v1/constraints"), ("GET", "/v1/control"), ("GET", "/v1/actors"),
    ("GET", "/v1/recent/proposals"), ("GET", "/v1/recent/ledger"), ("GET", "/v1/recent/journal"),
    ("GET", "/v1/requests/{request}"), ("GET", "/v1/me"), ("GET", "/v1/summary"), ("GET", "/v1/prompts"),
    ("GET", "/v1/proposals/{proposal_id}/story"), ("GET", "/v1/actors/{id}/statement"),
    ("GET", "/v1/actors/{id}/balances"),
}  # fmt: skip


@pytest.fixture(scope="module")
def client(server):
    """An app with some history, whose clock stands still: no outcome grows too old for `/healthz/loop`."""
    with server.database(server.template("app", fill)) as url, running(url, clock=lambda: 2 * 10**15) as client:
        client.propose(1)
        client.propose(45)
        client.propose(60)
        yield client


@pytest.fixture(scope="module")
def document(client):
    return client.get("/openapi.json")


@pytest.fixture(scope="module")
def schema(client):
    return schemathesis.openapi.from_url(f"{client.http.base_url}/openapi.json")


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["well", "ill"])
@pytest.mark.parametrize(("method", "path"), sorted(ENDPOINTS))
def test_does_what_its_schema_says(schema, method, path, mode):
    operation = schema[path][method]
    if mode is GenerationMode.NEGATIVE and not (operation.query or operation.path_parameters or operation.body):
        return  # nothing can be sent wrongly

    @settings(max_examples=10, phases=[Phase.generate], suppress_health_check=list(HealthCheck), database=None)
    @given(operation.as_strategy(generation_mode=mode))
    def holds(case):
        case.call_and_validate(headers={"Authorization": f"Bearer {KEYS['operate']}"}, checks=CHECKS)

    holds()


def operations(document):
    return {(m.upper(), path): found for path, own in document["paths"].items() for m, found in own.items()}


def test_documents_every_endpoint(document):
    assert set(operations(document)) == ENDPOINTS


def test_documents_every_problem_with_an_example(document):
    for (method, path), found in operations(document).items():
        assert "405" in found["responses"] and "500" in found["responses"]
        for status, response in found["responses"].items():
            if status != "200":
                shown = response["content"]["application/problem+json"]
                assert shown["schema"] == {"$ref": "#/components/schemas/ProblemBody"}
                assert shown["example"]["status"] == int(status)
        if path.startswith("/v1/"):
            assert {"401", "403", "422", "503"} <= set(found["responses"])
            assert found["security"] == [{"HTTPBearer": []}]
        if method != "GET":
            assert {"400", "413"} <= set(found["responses"])


def test_documents_what_is_sent_and_answered_with_examples(document):
    schemas = document["components"]["schemas"]
    for (method, path), found in operations(document).items():
        if method != "GET":
            name = found["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
            assert schemas[name]["examples"], path
        for answer in found["responses"]["200"]["content"].values():
            name = answer["schema"].get("$ref", "").rpartition("/")[2]
            assert "example" in answer or schemas[name]["examples"], path


def test_loads_nothing_from_elsewhere(client, document):
    assert client.ask("GET", "/docs").status_code == client.ask("GET", "/redoc").status_code == 404
    assert "http" not in json.dumps(document["paths"]).replace("http://127.0.0.1", "").replace("https://", "")


def test_takes_the_examples_of_its_own_schema(client, document):
    """Those that a newcomer copies: each is taken, or refused for what it says and not for its form."""
    schemas = document["components"]["schemas"]
    for (method, path), found in operations(document).items():
        if method != "GET":
            name = found["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
            for example in schemas[name]["examples"]:
                where = path.replace("{proposal_id}", str(uuid.uuid4())).replace("{id}", "999").replace("{seq}", "999")
                response = client.ask(method, where, example, once=str(uuid.uuid4()))
                assert response.status_code in (200, 404, 409) or "epoch" in example, (path, response.text)
