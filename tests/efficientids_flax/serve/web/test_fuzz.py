"""Requests that schemathesis makes of the OpenAPI document: right ones, and ones that break it.

`python -m benchmarks.serve malformed` sends ten thousand of them and others to a process.
"""

import contextlib
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.schemas import APIOperation

from tests.efficientids_flax.serve.serving import ADMIN, Served

PATHS = ["recommend", "score", "put_set", "remove_set", "list_sets"]
FEW = settings(
    max_examples=12, database=None, deadline=None, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


@pytest.fixture(scope="module")
def operations(served: Served) -> dict[str, APIOperation]:
    schema = schemathesis.openapi.from_dict(served.ask("GET", "/openapi.json", token=None).json())
    found = [one.ok() for one in schema.get_all_operations()]
    return {one.definition.raw["operationId"]: one for one in found}


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("name", PATHS)
def test_answers_are_as_the_document_says(
    served: Served, operations: dict[str, APIOperation], name: str, mode: GenerationMode
):
    operation = operations[name]

    @FEW
    @given(operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        given = case.as_transport_kwargs(base_url="http://test")
        sent = {key: given[key] for key in ("params", "json", "data") if given.get(key) is not None}
        if "data" in sent:
            data = sent.pop("data")
            sent["content"] = data if isinstance(data, bytes | str) else str(data)
        headers = {key: value for key, value in dict(given.get("headers") or {}).items()
                   if value.isascii() and key.lower() != "authorization"}  # fmt: skip
        answer = served.ask(case.method, given["url"], headers=headers, token=ADMIN, **sent)
        assert answer.status_code < 500, (sent, answer.text)
        known = {int(code) for code in operation.definition.raw["responses"]}
        assert answer.status_code in known | {404, 405}, (sent, answer.text)
        if answer.status_code >= 400:
            assert answer.headers["content-type"] == "application/problem+json"

    with contextlib.suppress(Unsatisfiable):  # a path that takes nothing takes nothing wrong
        check()
    for made in served.ask("GET", "/v1/sets").json()["sets"]:
        served.ask("DELETE", f"/v1/sets/{made}", token=ADMIN)
