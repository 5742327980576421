"""Rows of a history in columns: rows as they were given, in little memory, and bounded."""

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest

from efficientids_flax.train.history import History, Rows, read_history, rows
from efficientids_flax.train.logs import curves

NAMES = ["aux_loss", "avg_xent", "finite", "grad_norm", "learning_rate", "loss", "total_weight"]


def filled(steps: int, names: Any = ("loss",), every: int = 0) -> Rows:
    made = Rows()
    for step in range(1, steps + 1):
        made.add_steps(step, names, [[step / 8] * len(names)])
        if every and step % every == 0:
            made.add({"step": step, "eval_loss": -float(step)})
    return made


def test_rows_are_a_sequence_of_dicts():
    made = filled(10, ("loss", "norm"), every=5)
    assert len(made) == 10
    assert made[0] == {"step": 1, "loss": 0.125, "norm": 0.125}
    assert made[-1] == {"step": 10, "loss": 1.25, "norm": 1.25, "eval_loss": -10.0}
    assert made[3:5] == [made[3], made[4]]
    assert made[::-1][0] == made[-1]
    assert list(made) == [made[place] for place in range(10)]
    assert made == list(made)
    assert made != list(made)[:-1]
    assert "10 rows" in repr(made)
    for place in (10, -11):
        with pytest.raises(IndexError):
            made[place]
    assert not Rows()


def test_names_that_change_and_steps_between():
    made = Rows()
    made.add_steps(1, ("loss",), [[1.0], [2.0]])
    made.add_steps(3, ("loss", "norm"), [[3.0, 0.5]])
    made.add({"step": 7, "test_loss": None})
    made.add({"step": 2, "eval_loss": 9.0})
    assert list(made) == [
        {"step": 1, "loss": 1.0},
        {"step": 2, "loss": 2.0, "eval_loss": 9.0},
        {"step": 3, "loss": 3.0, "norm": 0.5},
        {"step": 7, "test_loss": None},
    ]
    assert made.names() == ["loss", "norm", "test_loss", "eval_loss"]
    steps, values = made.column("loss")
    assert (steps.tolist(), values.tolist()) == ([1, 2, 3], [1, 2, 3])
    assert [part.tolist() for part in made.column("eval_loss")] == [[2], [9]]
    assert made.column("test_loss")[0].size == 0


def test_a_step_takes_little_memory(tmp_path: Any):
    values = np.random.default_rng(0).random((100, len(NAMES))).tolist()
    history = History(tmp_path)
    tracemalloc.start()
    try:
        for first in range(1, 20_001, 100):
            history.add_steps(first, NAMES, values)
        used = tracemalloc.get_traced_memory()[0] / 20_000
    finally:
        tracemalloc.stop()
    assert used < 100  # 64 of numbers
    history.close()
    assert read_history(tmp_path) == history.rows


def test_the_older_half_thins_out_and_evaluations_stay(monkeypatch: Any, tmp_path: Any):
    monkeypatch.setattr(rows, "MOST", 1000)
    history = History(tmp_path)
    for first in range(1, 20_001, 8):
        history.add_steps(first, ("loss",), [[step / 4] for step in range(first, first + 8)])
        if first % 1000 == 993:
            history.add({"step": first + 7, "eval_loss": 1.0})
    history.close()
    made = history.rows
    steps = [row["step"] for row in made]
    assert len(made) <= 1000
    assert len(made) + made.left_out == 20_000
    assert steps == sorted(set(steps))
    assert steps[0] == 1
    assert steps[-400:] == list(range(19_601, 20_001))
    assert all(row["loss"] == row["step"] / 4 for row in made)
    assert [row["step"] for row in made if "eval_loss" in row] == list(range(1000, 20_001, 1000))
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 20_000 + 20
    again = History(tmp_path, start=20_000)  # a run that goes on
    again.close()
    assert again.rows[-1] == made[-1]
    assert len(again.rows) <= 1000


def test_a_long_curve_is_drawn_by_means_and_says_so(monkeypatch: Any, tmp_path: Any):
    monkeypatch.setattr(curves, "POINTS", 10)
    drawn: list[Any] = []
    monkeypatch.setattr(curves, "draw", lambda panels, path: drawn.append(panels) or True)
    assert curves.save_curves(filled(100, every=50), tmp_path / "a.png")
    (panel,) = drawn[0]
    steps, values = panel["loss (means of 10 steps)"]
    assert (steps[0], values[0]) == (5.5, 5.5 / 8)
    assert len(steps) == 10
    assert panel["eval_loss"] == ([50.0, 100.0], [-50.0, -100.0])


@pytest.mark.parametrize(
    "edited",
    [
        lambda lines: lines[::-1],
        lambda lines: [lines[place] for place in (3, 1, 0, 5, 2, 4)],
        lambda lines: lines + lines,
        lambda lines: ['{"step": 1, "loss": "abc"}', '{"step": true}', "[]", "{", *lines],
        lambda lines: [*lines, '{"step": 99999999999999999999, "loss": 1.0}'],
    ],
)
def test_a_file_that_was_edited_is_read_in_the_order_of_the_steps(edited: Any, tmp_path: Any):
    history = History(tmp_path)
    history.add_steps(1, ("loss",), [[float(step)] for step in range(1, 6)])
    history.add({"step": 5, "eval_loss": 0.5})
    history.close()
    place = tmp_path / "history.jsonl"
    written = place.read_text()
    place.write_text("\n".join(edited(written.splitlines())))  # without a last line's end
    assert read_history(tmp_path) == history.rows
    again = History(tmp_path, start=5)
    again.add_steps(6, ("loss",), [[6.0]])
    again.close()
    assert again.rows[:5] == history.rows[:]
    assert again.missing == 0
    found = place.read_text().splitlines()
    assert [json.loads(line)["step"] for line in found] == [1, 2, 3, 4, 5, 5, 6]
    assert {*found[:-1]} == {*written.splitlines()}


def test_steps_that_are_gone_from_the_file_are_counted(tmp_path: Any):
    history = History(tmp_path)
    history.add_steps(1, ("loss",), [[0.0]] * 8)
    history.close()
    place = tmp_path / "history.jsonl"
    lines = place.read_text().splitlines(keepends=True)
    place.write_text("".join(lines[:2] + lines[5:7]))
    again = History(tmp_path, start=8)
    again.close()
    assert again.missing == 4
