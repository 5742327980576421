"""What is wrong with a request is told in a problem document that names the field."""

import asyncio
import json
from typing import Any

import pytest

from tests.efficientids_flax.serve.serving import ADMIN, LIMITS, Served

ASK = "/v1/recommend"
ONE = {"histories": [{"items": ["tt001"]}]}


def many(count: int) -> list[str]:
    return [f"tt{row:03d}" for row in range(count)]


def one(**history: Any) -> dict[str, Any]:
    return {"histories": [history]}


# fmt: off
H, ITEMS = "#/histories", "#/histories/0/items"
NO_ITEM, NO_KIND = "no item of the catalogue", "a text or a whole number"
WRONG = [
    # the body, the status, where, what is told
    (b"",                          422, "#", "is needed"),
    (b"{",                         400, None, "no JSON"),
    (b"\xff\xfe",                  400, None, "no JSON"),
    (b"[" * 2000,                  400, None, "no JSON"),
    (b"NaN",                       422, "#", "valid dictionary"),
    ([],                           422, "#", "valid dictionary"),
    ({},                           422, H, "is needed"),
    ({"histories": []},            422, H, "at least 1 item"),
    ({"histories": [{}] * 7},      422, H, "at most 6 items"),
    (one(),                        422, f"{H}/0", "expected items, or ids with item_mask"),
    (one(ids=[1]),                 422, f"{H}/0", "expected items, or ids with item_mask"),
    (one(ids=[1], item_mask=[]),   422, f"{H}/0/item_mask", "found 0 for 1 ids"),
    (one(ids=[128], item_mask=[0]), 422, f"{H}/0/ids/0", "word 128 is outside of [0, 128)"),
    (one(ids=[200], item_mask=[1]), 422, f"{H}/0/ids/0", "item 200 is outside of [0, 200)"),
    (one(ids=[-1], item_mask=[1]), 422, f"{H}/0/ids/0", "greater than or equal to 0"),
    (one(items=[], ids=[1], item_mask=[1]), 422, f"{H}/0", "items alone"),
    (one(items=["tt001", "no"]),   422, f"{ITEMS}/1", f'"no": {NO_ITEM}'),
    (one(items=["tt001", 5]),      422, f"{ITEMS}/1", f"5: {NO_ITEM}"),
    (one(items=[True]),            422, f"{ITEMS}/0", NO_KIND),
    (one(items=[1.0]),             422, f"{ITEMS}/0", NO_KIND),
    (one(items=[10**300]),         422, f"{ITEMS}/0", NO_ITEM),
    (one(items=["\ud800"]),        422, f"{ITEMS}/0", ""),
    (one(items="tt001"),           422, ITEMS, "valid list"),
    (one(items=many(21)),          422, ITEMS, "at most 20 items"),
    (one(items=[], exclude=many(13)), 422, f"{H}/0/exclude", "at most 12 items"),
    (one(items=[], exclude=many(8)) | {"exclude": many(8)}, 422, f"{H}/0/exclude",
     "16 items with those for all"),
    (ONE | {"k": 0},               422, "#/k", "greater than or equal to 1"),
    (ONE | {"k": 41},              422, "#/k", "less than or equal to 40"),
    (ONE | {"k": "5"},             422, "#/k", "valid integer"),
    (ONE | {"exclude_seen": 1},    422, "#/exclude_seen", "valid boolean"),
    (ONE | {"allowed": ["nobody"]}, 422, "#/allowed/0", "'nobody': there is no such set"),
    (ONE | {"allowed": ["../x"]},  422, "#/allowed/0", "match pattern"),
    (ONE | {"a/b~": 1},            422, "#/a~1b~0", "is not known"),
    (ONE | {"\ud800": 1},          422, "#", "valid string"),
]
# fmt: on


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: repr(wrong[0])[:50])
def test_the_field_is_named(served: Served, wrong: tuple[Any, int, str | None, str]):
    body, status, where, told = wrong
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = served.ask("POST", ASK, content=sent, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert (found["type"], found["status"]) == ("about:blank", status)
    assert found["title"] and found["request_id"] == answer.headers["x-request-id"]
    assert told in found["detail"]
    assert ([one["pointer"] for one in found["errors"]] if where else []) == ([where] * bool(where))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("GET", "/v1/x", 404), ("DELETE", ASK, 405),
     ("GET", ASK, 405), ("POST", "/", 405), ("OPTIONS", ASK, 405), ("TRACE", ASK, 405)],
)  # fmt: skip
def test_paths_and_methods_that_there_are_not(served: Served, method: str, path: str, status: int):
    answer = served.ask(method, path)
    assert (answer.status_code, answer.json()["status"]) == (status, status)
    assert ("allow" in answer.headers) == (status == 405)


def test_only_json_is_read(served: Served):
    """A page of another origin can send a form without being asked, and no JSON."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""):
        answer = served.ask("POST", ASK, content=b"{}", headers={"Content-Type": kind})
        assert answer.status_code == 415, kind
    kind = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert served.ask("POST", ASK, content=json.dumps(ONE), headers=kind).status_code == 200


def test_bodies_that_are_too_large(served: Served):
    async def parts() -> Any:
        for _ in range(100):
            yield b" " * 100

    kind = {"Content-Type": "application/json"}
    for content in (b" " * (LIMITS.max_body + 1), parts()):
        answer = served.ask("POST", ASK, content=content, headers=kind)
        assert answer.status_code == 413
        assert "more than 4096 bytes" in answer.json()["detail"]
        assert answer.headers["connection"] == "close"


def test_a_set_has_a_name_and_items_of_the_catalogue(served: Served):
    for name in ("a b", "a" * 65, ".x", "%2e%2e"):
        answer = served.ask("PUT", f"/v1/sets/{name}", token=ADMIN, json={"items": []})
        assert answer.json()["errors"][0]["parameter"] == "name", name
    answer = served.ask("PUT", "/v1/sets/x", token=ADMIN, json={"items": ["tt001", "no"]})
    assert answer.json()["errors"][0]["pointer"] == "#/items/1"
    assert served.ask("GET", "/v1/sets").json() == {"sets": {}}


def test_there_are_not_too_many_sets(served: Served):
    def put(number: int) -> int:
        path = f"/v1/sets/s{number}"
        return served.ask("PUT", path, token=ADMIN, json={"items": ["tt000"]}).status_code

    assert [put(number) for number in range(32)] == [200] * 31 + [409]
    assert put(30) == 200, "one that is there may be replaced"
    for number in range(31):
        served.ask("DELETE", f"/v1/sets/s{number}", token=ADMIN)


def test_what_there_is_no_room_for_comes_again(served: Served):
    body = {"histories": ONE["histories"] * 6}

    async def at_once() -> list[Any]:
        asked = (served.asked("POST", ASK, json=body) for _ in range(8))
        return await asyncio.gather(*asked)

    answers = served.run(at_once())
    busy = [answer for answer in answers if answer.status_code == 429]
    assert 0 < len(busy) < 8
    assert {answer.status_code for answer in answers} == {200, 429}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in busy)
    assert served.ask("POST", ASK, json=body).status_code == 200


def test_a_request_keeps_its_id(served: Served):
    given = {"X-Request-Id": "abc-1.2"}
    assert served.ask("GET", "/healthz", headers=given).headers["x-request-id"] == "abc-1.2"
    given = {"X-Request-Id": 'a"\n'}
    assert len(served.ask("GET", "/healthz", headers=given).headers["x-request-id"]) == 32
