"""The format of recordings on disk: what is written is read, what is wrong is named."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parity_tests.readers.own import read_recording, write_recording
from parity_tests.recording import Pass, Recording, RecordingError, Step

IDS = {"ids": np.arange(6, dtype=np.int32).reshape(2, 3)}
VALUES = np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3)


def recording(**values: Any) -> Recording:
    main = Pass(
        "",
        IDS,
        activations={"a/b": VALUES, "a/c": VALUES},
        outputs={"logits": VALUES + 1},
        metrics={"loss/value": np.array(2.0), "loss/weight": np.array(3.0)},
        gradients={"params/w": VALUES},
        parameters={"params/w": 2 * VALUES},
    )
    evaluation = replace(main, name="eval", train=False, gradients={}, metrics={})
    exact = Pass("half", IDS, {"a/b": VALUES + 1}, parameters=main.parameters)
    half = replace(exact, activations={"a/b": VALUES}, dtype="bfloat16", exact=exact)
    made = Recording(
        "", "a program 1.0", "praxis", "language_model", (main, evaluation, half),
        start={"params/w": VALUES}, seed=3, versions={"program": "1.0"}, notes="words",
        tolerances={"activations": 1e-6}, settings={"norm_epsilon": 1e-5},
        steps=(Step(1, IDS, {"params/w": VALUES}, {"params/w": 3 * VALUES}, np.array(0.5)),
               Step(2, IDS, {}, {"params/w": 4 * VALUES})),
    )  # fmt: skip
    return replace(made, **values)


def same(first: Any, second: Any) -> bool:
    if isinstance(first, np.ndarray | np.generic):
        return np.array_equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, tuple):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, Pass | Step | Recording):
        return same(vars(first), vars(second))
    return first == second


def test_what_is_written_is_read(tmp_path: Path):
    write_recording(tmp_path / "r", recording())
    found = read_recording(tmp_path / "r")
    assert same(found, recording(path=str(tmp_path / "r")))


def test_equal_arrays_are_stored_once(tmp_path: Path):
    write_recording(tmp_path, recording())
    with np.load(tmp_path / "arrays.npz") as file:
        assert "activations/a/c" not in file.files
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["same"]["activations/a/c"] == "activations/a/b"


def test_no_recording_is_overwritten(tmp_path: Path):
    write_recording(tmp_path, recording())
    with pytest.raises(RecordingError, match="holds a recording already"):
        write_recording(tmp_path, recording())


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"origin": None}, "origin: missing"),
        ({"colour": 1}, "colour: unknown field"),
        ({"schema_version": 2}, "schema_version: found 2, 1 is known"),
        ({"model": "tree"}, "model: found 'tree', expected one of language_model, recommender"),
        ({"dtype": "int8"}, "dtype: found 'int8'"),
        ({"mode": "test"}, "mode: found 'test', expected one of train, eval"),
        ({"seed": "x"}, "seed: found 'x', which has another type"),
        ({"tolerances": {"losses": 1}}, "tolerances: losses: unknown, known are activations"),
        ({"same": {"outputs/x": "outputs/y"}}, "same: outputs/x: no array outputs/y"),
        ({"passes": {"other": {}}}, "passes: other has no arrays"),
    ],
)
def test_faults_of_the_manifest_are_named(tmp_path: Path, edit: dict[str, Any], message: str):
    write_recording(tmp_path, recording())
    file = tmp_path / "manifest.json"
    manifest = json.loads(file.read_text()) | edit
    file.write_text(json.dumps({k: v for k, v in manifest.items() if v is not None or k == "seed"}))
    with pytest.raises(RecordingError, match=message.replace("(", r"\(")):
        read_recording(tmp_path)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("activation/x", r"activation/x: expected \[passes/<pass>/\]"),
        ("outputs/", "outputs/: expected"),
        ("float32/inputs/ids", "float32/inputs/ids: expected"),
        ("steps/one/loss", r"steps/one/loss: expected steps/<n>"),
        ("steps/7/gradients/w", "steps/7/parameters: missing"),
        ("inputs/attention_mask", "unknown field of a batch; ours is paddings, which is 1 - att"),
    ],
)
def test_keys_that_the_format_lacks_are_named(tmp_path: Path, key: str, message: str):
    write_recording(tmp_path, recording())
    with np.load(tmp_path / "arrays.npz") as file:
        arrays = {name: file[name] for name in file.files}
    np.savez(tmp_path / "arrays.npz", **{**arrays, key: VALUES})  # pyright: ignore
    with pytest.raises(RecordingError, match=message):
        read_recording(tmp_path)


def test_damage_is_named(tmp_path: Path):
    write_recording(tmp_path, recording())
    (tmp_path / "arrays.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(RecordingError, match="not a readable"):
        read_recording(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(RecordingError, match="not JSON"):
        read_recording(tmp_path)


def test_objects_are_not_unpickled(tmp_path: Path):
    write_recording(tmp_path, recording())
    np.savez(tmp_path / "arrays.npz", **{"inputs/ids": np.array([{}])})  # pyright: ignore
    with pytest.raises(RecordingError, match="not a readable"):
        read_recording(tmp_path)
