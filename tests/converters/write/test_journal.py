"""The journal of an unfinished output."""

import json
from pathlib import Path
from typing import Any

import pytest

from converters.errors import OutputError
from converters.stores.local import LocalStore
from converters.write.journal import PLACE, Journal


def record(target: str, **more: Any) -> dict[str, Any]:
    return {"target": target, "sha256": target[::-1], **more}


def test_it_remembers_finished_leaves(tmp_path: Path):
    Journal(LocalStore(tmp_path)).begin("plan")
    Journal(LocalStore(tmp_path)).add([record("params/a"), record("params/b")])
    Journal(LocalStore(tmp_path)).add([record("state/step")])
    journal = Journal(LocalStore(tmp_path))
    wanted = {name: record(name) for name in ("params/a", "params/b", "state/step")}
    assert journal.done("plan") == wanted
    assert journal.records() == wanted


def test_nothing_is_finished_without_a_journal(tmp_path: Path):
    assert Journal(LocalStore(tmp_path)).done("plan") == {}
    Journal(LocalStore(tmp_path)).add([record("params/a")])
    assert Journal(LocalStore(tmp_path)).done("plan") == {}


def test_another_plans_output_is_not_gone_on_from(tmp_path: Path):
    journal = Journal(LocalStore(tmp_path))
    journal.begin("plan")
    with pytest.raises(OutputError, match="another checkpoint or with other options"):
        journal.done("other")


def test_a_job_that_is_done_again_replaces_its_entry(tmp_path: Path):
    journal = Journal(LocalStore(tmp_path))
    journal.begin("plan")
    journal.add([record("params/a", verified=False)])
    journal.add([record("params/a", verified=True)])
    assert journal.done("plan") == {"params/a": record("params/a", verified=True)}


def test_leaves_of_any_name(tmp_path: Path):
    journal = Journal(LocalStore(tmp_path))
    journal.begin("plan")
    names = ["params/a/b", "params/a.b", "params/" + "long/" * 200, "params/ü#%"]
    for name in names:
        journal.add([record(name)])
    assert list(journal.done("plan")) != []
    assert set(journal.done("plan")) == set(names)


def test_what_a_killed_writer_left_is_no_entry(tmp_path: Path):
    journal = Journal(LocalStore(tmp_path))
    journal.begin("plan")
    journal.add([record("params/a")])
    (entry,) = (tmp_path / PLACE).glob("job-*")
    (tmp_path / PLACE / f".{entry.name}.1234.tmp").write_text('[{"target": "half')
    assert list(journal.done("plan")) == ["params/a"]
    assert json.loads(entry.read_text()) == [record("params/a")]


def test_it_is_gone_from_a_finished_output(tmp_path: Path):
    journal = Journal(LocalStore(tmp_path))
    journal.begin("plan")
    journal.add([record("params/a")])
    journal.clear()
    assert list(tmp_path.iterdir()) == []
