"""Another export takes the place of the first, or does not and says so; what logs hold."""

import asyncio
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from efficientids_flax.serve.limits import Limits
from efficientids_flax.serve.logs import JsonLines, Lines
from efficientids_flax.serve.service import named_files
from tests.efficientids_flax.serve.serving import ADMIN, ITEMS, USER, Served, settings_for


@pytest.fixture(scope="module")
def changing(
    model: Path, tmp_path_factory: pytest.TempPathFactory, served: Served
) -> Iterator[Served]:
    """A server whose export the tests change; it has compiled what `served` has."""
    place = Path(shutil.copytree(model, tmp_path_factory.mktemp("changing") / "model"))
    (place / "in-stock.txt").write_text("tt003\ntt005\n\n")
    settings = settings_for(place, sets=(("in-stock", str(place / "in-stock.txt")),))
    with Served(settings, like=served) as made:
        yield made


def rename(place: Path, prefix: str, items: int = ITEMS) -> None:
    rows = ({"id": f"{prefix}{row:03d}", "title": None} for row in range(items))
    (place / "items.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def test_a_new_export_takes_over_without_a_request_that_is_lost(changing: Served):
    place = Path(changing.settings.source.path)
    rename(place, "new")
    before = changing.figure("efficientids_compilations_total")

    async def ask(prefix: str) -> Any:
        return await changing.asked(
            "POST", "/v1/recommend", json={"histories": [{"items": [f"{prefix}001"]}]}
        )

    async def swap() -> tuple[Any, list[Any]]:
        reload = asyncio.create_task(changing.asked("POST", "/v1/reload", token=ADMIN))
        answers = []
        while not reload.done():
            answers.append(await ask("tt"))
            await asyncio.sleep(0.01)  # who asks without a break leaves the loading thread no time
        return await reload, answers

    reload, answers = changing.run(swap())
    assert (reload.status_code, reload.json()["generation"]) == (200, 3)
    told = {(answer.status_code, answer.json().get("generation")) for answer in answers}
    assert (200, 2) in told and told <= {(200, 2), (422, None)}, "the last may see the new one"
    assert changing.run(ask("new")).json()["generation"] == 3
    assert changing.figure("efficientids_compilations_total") == before, "the model is the same"
    assert changing.ask("GET", "/v1/sets").json() == {"sets": {"in-stock": 0}}, "other ids"


@pytest.mark.parametrize("broken", ["items", "config", "clustering"])
def test_a_bad_export_is_not_taken(changing: Served, broken: str):
    place = Path(changing.settings.source.path)
    file = place / {"items": "items.jsonl", "config": "config.json",
                    "clustering": "clustering.npz"}[broken]  # fmt: skip
    kept, generation = file.read_bytes(), changing.ask("GET", "/v1/model").json()["generation"]
    if broken == "items":
        rename(place, "tt", ITEMS - 1)
    else:
        file.write_bytes(b"{}")
    answer = changing.ask("POST", "/v1/reload", token=ADMIN)
    assert answer.status_code == 409
    assert answer.json()["detail"].startswith("kept the old export: ")
    assert str(place) in answer.json()["detail"]
    assert changing.ask("GET", "/v1/model").json()["generation"] == generation
    assert changing.ask("GET", "/readyz", token=None).status_code == 200
    file.write_bytes(kept)
    assert changing.figure('efficientids_reloads_total{outcome="refused"}') > 0


def test_one_reload_at_a_time(changing: Served):
    async def twice() -> list[int]:
        asked = (changing.asked("POST", "/v1/reload", token=ADMIN) for _ in range(2))
        return sorted(answer.status_code for answer in await asyncio.gather(*asked))

    assert changing.run(twice()) == [200, 409]


@pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG])
def test_logs_tell_of_requests_and_not_of_histories(
    served: Served, caplog: pytest.LogCaptureFixture, level: int
):
    with caplog.at_level(level, "efficientids_flax.serve"):
        body = {"histories": [{"items": ["tt007", "tt009"]}, {"items": ["tt008"]}]}
        served.ask("POST", "/v1/recommend", json=body, headers={"X-Request-Id": "me"})
        served.ask("POST", "/v1/recommend", json={"histories": [{"items": ["tt007", "x"]}]})
    lines = [json.loads(JsonLines().format(record)) for record in caplog.records]
    requests = [line for line in lines if line["message"] == "request"]
    assert requests[0]["request_id"] == "me" and requests[0]["histories"] == 2
    assert [line["status"] for line in requests] == [200, 422]
    assert {line["route"] for line in requests} == {"/v1/recommend"}
    text = json.dumps(lines) + "".join(map(Lines().format, caplog.records))
    assert USER not in text
    assert ("tt007" in text) == (level == logging.DEBUG)


def test_a_line_for_people_is_one_line():
    record = logging.makeLogRecord({"msg": "request", "about": {"path": "a\nb c", "status": 200}})
    assert Lines().format(record).endswith(r'request path="a\nb c" status=200')


def test_limits_are_above_nothing_and_fit_each_other():
    with pytest.raises(ValueError, match=r"max_k: expected above 0, found 0"):
        Limits(max_k=0)
    with pytest.raises(ValueError, match=r"max_queue`: 5 has no room for one request of 64"):
        Limits(max_queue=5)


def test_sets_of_the_command_line():
    assert named_files(["a=b=c", "d=e"]) == (("a", "b=c"), ("d", "e"))
    with pytest.raises(ValueError, match="'a': expected NAME=FILE"):
        named_files(["a"])


def test_sets_of_files_name_the_line(changing: Served, tmp_path: Path):
    from efficientids_flax.serve.answers import read_set

    file, export = tmp_path / "set.txt", changing.service.snapshot
    assert export is not None
    rename(Path(changing.settings.source.path), "tt")
    assert changing.ask("POST", "/v1/reload", token=ADMIN).status_code == 200
    file.write_text("tt003\nno\n")
    with pytest.raises(ValueError, match=r'set.txt:2: "no": no item of the catalogue'):
        read_set(str(file), changing.service.snapshot.export)  # pyright: ignore
    file.write_text("tt003\n\ntt001\n")
    found = read_set(str(file), changing.service.snapshot.export)  # pyright: ignore
    np.testing.assert_array_equal(found, [3, 1])
