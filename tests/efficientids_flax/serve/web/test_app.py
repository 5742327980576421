"""The paths: answers are those of the command `recommend`, and nothing compiles."""

import asyncio
import html
import json
import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from efficientids_flax.inference import Ranker, open_recommender
from efficientids_flax.inference.commands.recommend import recommend as command
from tests.efficientids_flax.serve.serving import ADMIN, ADMIN_PATHS, ITEMS, USER, Served

TOLERANCE = 3e-6  # of log-probabilities in float32: products are taken in another order
HISTORIES = ((1, 2, 3), (7,), (199, 0, 5, 5, 8, 30, 41, 2), (150, 20))
EVERY = range(ITEMS)

Ranking = dict[tuple[int, ...], tuple[list[int], dict[int, float]]]


@pytest.fixture(scope="module")
def ranking(model: Path) -> Ranking:
    """All items in order, and their log-probabilities: of a filter the first that it lets pass."""
    found = Ranker(*open_recommender(model)).recommend(HISTORIES, ITEMS, max_history=5)
    return {
        history: (ids.tolist(), dict(zip(ids.tolist(), scores.tolist(), strict=True)))
        for history, ids, scores in zip(HISTORIES, *found, strict=True)
    }


def names(rows: Any) -> list[str]:
    return [f"tt{row:03d}" for row in rows]


def agrees(
    got: dict[str, Any], ranking: Ranking, history: tuple[int, ...], k: int, allowed: Any = EVERY
) -> None:
    order, scores = ranking[history]
    wanted = [row for row in order if row in allowed][:k]
    assert got["items"] == wanted
    assert got["item_ids"] == names(wanted)
    assert got["titles"] == [f"Title <{row}> é" for row in wanted]
    log_probs = [scores[row] for row in wanted]
    np.testing.assert_allclose(got["log_probability"], log_probs, rtol=0, atol=TOLERANCE)


def test_answers_are_the_offline_ones_whatever_they_are_batched_with(
    served: Served, ranking: Ranking
):
    asked = [
        (HISTORIES[number % 4], 3 + 20 * (number % 2), number % 3 == 0, [20, 8][: number % 3])
        for number in range(12)
    ]

    async def at_once() -> list[Any]:
        bodies = [
            {"histories": [{"items": names(history)}], "k": k, "exclude_seen": unseen,
             "exclude": names(exclude)}
            for history, k, unseen, exclude in asked
        ]  # fmt: skip
        return await asyncio.gather(
            *(served.asked("POST", "/v1/recommend", json=body) for body in bodies)
        )

    compiled = served.figure("efficientids_compilations_total")
    before = served.figure("efficientids_batch_histories_count")
    answers = served.run(at_once())
    assert served.figure("efficientids_compilations_total") == compiled > 0
    assert served.figure("efficientids_batch_histories_count") - before < 12, "not one by one"
    for (history, k, unseen, exclude), answer in zip(asked, answers, strict=True):
        assert answer.status_code == 200, answer.text
        allowed = set(EVERY) - set(exclude) - (set(history) if unseen else set())
        agrees(answer.json()["results"][0], ranking, history, k, allowed)


def test_the_command_and_the_server_say_the_same(served: Served, model: Path):
    done = CliRunner().invoke(
        command,
        ["--checkpoint", str(model), "--input-items", "1,2,3", "--top-k", "4", "--json",
         "--max-history", "5", "--scores", "log-probability", "--exclude-seen"],
    )  # fmt: skip
    wanted = json.loads(done.stdout.splitlines()[-1])
    (got,) = served.recommend([1, 2, 3], k=4, exclude_seen=True)
    log_probs = got.pop("log_probability"), wanted.pop("log_probability")
    assert got == wanted
    np.testing.assert_allclose(*log_probs, rtol=0, atol=TOLERANCE)


def test_sets_narrow_the_catalogue_and_nothing_compiles(served: Served, ranking: Ranking):
    def put(name: str, rows: Any) -> Any:
        return served.ask("PUT", f"/v1/sets/{name}", token=ADMIN, json={"items": names(rows)})

    even, low = set(range(0, ITEMS, 2)), set(range(50))
    compiled = served.figure("efficientids_compilations_total")
    put("even", even)
    assert put("low", low).json() == {"sets": {"low": 50}}
    assert served.ask("GET", "/v1/sets").json() == {"sets": {"even": 100, "low": 50}}
    (got,) = served.recommend([1, 2, 3], k=30, allowed=["even", "low"])
    agrees(got, ranking, (1, 2, 3), 30, even & low)
    (got,) = served.recommend([1, 2, 3], k=5, allowed=["even"], exclude_sets=["low"])
    agrees(got, ranking, (1, 2, 3), 5, even - low)
    put("low", [8, 20])
    (got,) = served.recommend([1, 2, 3], k=5, allowed=["low"])
    agrees(got, ranking, (1, 2, 3), 5, {8, 20})  # fewer than asked for
    for name in ("even", "low"):
        assert served.ask("DELETE", f"/v1/sets/{name}", token=ADMIN).status_code == 204
    assert served.ask("DELETE", "/v1/sets/low", token=ADMIN).status_code == 404
    assert served.figure("efficientids_compilations_total") == compiled


def test_items_of_a_hidden_set_are_shown_to_nobody(served: Served, ranking: Ranking):
    served.ask("PUT", "/v1/sets/sold-out", token=ADMIN, json={"items": names([20, 8])})
    (got,) = served.recommend([1, 2, 3], k=5)
    agrees(got, ranking, (1, 2, 3), 5, set(EVERY) - {20, 8})
    served.ask("DELETE", "/v1/sets/sold-out", token=ADMIN)
    (got,) = served.recommend([1, 2, 3], k=5)
    agrees(got, ranking, (1, 2, 3), 5)


def test_scores_of_candidates(served: Served, ranking: Ranking):
    asked = {"histories": [{"items": names(one)} for one in HISTORIES[:2]],
             "candidates": names([150, 8, 20])}  # fmt: skip
    found = served.ask("POST", "/v1/score", json=asked).json()["results"]
    for one, history in zip(found, HISTORIES, strict=False):
        assert one["items"] == [150, 8, 20]
        wanted = [ranking[history][1][row] for row in (150, 8, 20)]
        np.testing.assert_allclose(one["log_probability"], wanted, rtol=0, atol=TOLERANCE)


def test_items_among_words(served: Served):
    """A history of items alone is one of words and items without words."""
    both = [{"items": names([8, 3])}, {"ids": [8, 3], "item_mask": [1, 1]},
            {"ids": [8, 3], "item_mask": [0, 1]}]  # fmt: skip
    found = served.ask("POST", "/v1/recommend", json={"histories": both, "k": 3}).json()["results"]
    assert found[0] == found[1] != found[2]


def test_what_is_served_is_told(served: Served):
    about = served.ask("GET", "/v1/model").json()
    assert (about["items"], about["named"], about["max_history"]) == (ITEMS, True, 5)
    assert about["limits"]["max_k"] == 40
    assert served.ask("GET", "/healthz", token=None).json() == {"status": "ok"}
    assert served.ask("GET", "/readyz", token=None).json()["status"] == "ready"


@pytest.mark.parametrize(("method", "path"), ADMIN_PATHS)
def test_who_asks_changes_nothing(served: Served, method: str, path: str):
    answers = [served.ask(method, path, token=token) for token in (None, "wrong-token", USER)]
    assert [answer.status_code for answer in answers] == [401, 401, 403]
    assert answers[0].headers["WWW-Authenticate"] == "Bearer"


def test_every_path_below_v1_needs_a_token(served: Served):
    paths = served.ask("GET", "/openapi.json", token=None).json()["paths"]
    asked = [(method, path) for path, methods in paths.items() for method in methods]
    for method, path in asked:
        status = served.ask(method.upper(), path.replace("{name}", "x"), token=None).status_code
        assert (status == 401) == path.startswith("/v1/"), path
    changing = {(method.upper(), path.replace("{name}", "x")) for method, path in asked
                if path.startswith("/v1/") and method in ("put", "delete")}  # fmt: skip
    assert changing | {("POST", "/v1/reload")} == set(ADMIN_PATHS)


def test_the_commands_of_the_documentation_work_when_they_are_pasted(served: Served):
    text = served.ask("GET", "/docs", token=None).text
    commands = [html.unescape(one) for one in re.findall(r"<pre>(.*?)</pre>", text, re.DOTALL)]
    assert len(commands) == 10
    for told in commands:
        words = shlex.split(told.replace("\\\n", " "))
        assert words[:2] == ["curl", "-sS"]
        given: dict[str, Any] = {"headers": {}, "token": None}
        method = words[words.index("-X") + 1] if "-X" in words else "GET"
        for flag, value in pairwise(words):
            if flag == "-H":
                name, _, of = value.partition(": ")
                of = of.replace("$EFFICIENTIDS_ADMIN_TOKEN", ADMIN)
                given["headers"][name] = of.replace("$EFFICIENTIDS_TOKEN", USER)
            elif flag == "-d":
                given["content"] = value
        (url,) = [word for word in words if word.startswith("http")]
        if not url.endswith("reload"):  # see test_service.py
            answer = served.ask(method, url.removeprefix("http://test"), **given)
            assert answer.status_code in (200, 204), (told, answer.text)
    assert served.ask("GET", "/v1/sets").json() == {"sets": {}}, "the last one removed the set"


def test_pages_take_nothing_from_elsewhere(served: Served):
    for path in ("/", "/docs"):
        answer = served.ask("GET", path, token=None)
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert re.findall(r"(?:src|href)=\"(?!/|data:,)[^\"]*\"", answer.text) == []
