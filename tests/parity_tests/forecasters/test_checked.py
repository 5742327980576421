"""Recordings of forecasters: agreement, and each kind of fault is found where it begins."""

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from converters import convert
from efficientids_flax.forecast import TimesFM
from efficientids_flax.stored import load_converted, save_model
from efficientids_flax.tree import flatten, unflatten
from parity_tests.converted import parity
from parity_tests.recording import RecordingError


@pytest.fixture(scope="module")
def out(
    recording: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    @cache
    def made(name: str) -> Path:
        place = tmp_path_factory.mktemp("out") / name
        convert(recording(name) / "checkpoint", place)
        return place

    return made


@pytest.mark.parametrize(
    ("name", "count"), [("TimesFM_shared", 23), ("TimesFM_2", 22), ("TimesFM_finetuned", 30)]
)
def test_all_of_a_recording_agrees(
    name: str, count: int, out: Callable[[str], Path], recording: Callable[[str], Path]
):
    report = parity(out(name), recording(name))
    assert report.passes, report.summary()
    assert len(report.differences) >= count
    assert {item.verdict for item in report.differences} == {"ok"}
    assert any("context_length" in note for note in report.notes)


def test_scanned_layers_and_an_optimizer_of_them_agree(
    recording: Callable[[str], Path], tmp_path: Path
):
    case = recording("TimesFM_finetuned")
    convert(case / "checkpoint", tmp_path / "out", scan_layers=True)
    report = parity(tmp_path / "out", case)
    assert report.passes, report.summary()
    assert any(item.section == "step" for item in report.differences)


def spoiled(out: Path, place: Path, leaf: str) -> Path:
    """The model with one parameter made a little larger."""
    params, _, config = load_converted(out)
    leaves = flatten(params)
    leaves[leaf] = leaves[leaf] * 1.001
    save_model(place, TimesFM(config.model), unflatten(leaves), origins=config.origins)
    return place


@pytest.mark.parametrize(
    ("leaf", "first"),
    [("input_block/residual/kernel", "mid/input_ff_layer"),
     ("frequency_embedding/embedding", "mid/freq_emb"),
     ("decoder/layers_0/attention/per_dim_scale", "mid/layer_0_query_scaled"),
     ("decoder/layers_0/attention/out/kernel", "mid/layer_0_attention"),
     ("decoder/layers_1/mlp/down/kernel", "mid/layer_1"),
     ("horizon_block/output/bias", "fwd/output_ts")],
)  # fmt: skip
def test_a_fault_is_seen_where_it_begins(
    leaf: str,
    first: str,
    out: Callable[[str], Path],
    recording: Callable[[str], Path],
    tmp_path: Path,
):
    place = spoiled(out("TimesFM_shared"), tmp_path / "bad", leaf)
    report = parity(place, recording("TimesFM_shared"))
    assert report.first is not None
    assert report.first.name == first


@pytest.mark.parametrize(
    ("settings", "first"),
    [({"use_positional_embedding": False}, "mid/after_position"),
     ({"statistics": "centred"}, "fwd/sigma")],
)  # fmt: skip
def test_a_wrong_setting_is_seen(
    settings: dict, first: str, out: Callable[[str], Path], recording: Callable[[str], Path]
):
    report = parity(out("TimesFM_shared"), recording("TimesFM_shared"), settings=settings)
    assert report.first is not None
    assert report.first.name == first


def test_a_name_that_is_not_known_is_no_agreement(
    out: Callable[[str], Path], recording: Callable[[str], Path], tmp_path: Path
):
    place = tmp_path / "case"
    shutil.copytree(recording("TimesFM_2"), place)
    arrays = dict(np.load(place / "reference.npz"))
    for name in ("mid/layer_0_gate", "api/sideways/full", "extra/value"):
        arrays[name] = arrays["fwd/mu"]
    np.savez(place / "reference.npz", **arrays)
    found = {item.name: item for item in parity(out("TimesFM_2"), place).differences}
    for name in ("mid/layer_0_gate", "api/sideways/full", "extra/value"):
        assert found[name].verdict == "UNKNOWN"


def test_a_step_that_cannot_be_taken_says_why(recording: Callable[[str], Path], tmp_path: Path):
    case = recording("TimesFM_finetuned")
    convert(case / "checkpoint", tmp_path / "out", optimizer="none")
    (step,) = [item for item in parity(tmp_path / "out", case).differences
               if item.kind == "parameters"]  # fmt: skip
    assert step.verdict == "not run"


def test_models_of_other_kinds_are_refused(
    out: Callable[[str], Path], recording: Callable[[str], Path], tmp_path: Path
):
    convert(recording("k_adam") / "checkpoint", tmp_path / "words")
    with pytest.raises(RecordingError, match="is no forecaster"):
        parity(tmp_path / "words", recording("TimesFM_2"))
    from parity_tests.cases import recordings

    words = next(iter(recordings().values()))
    with pytest.raises(RecordingError, match="the checkpoint is a forecaster"):
        parity(out("TimesFM_2"), words)


def test_the_description_gives_what_no_tree_tells(recording: Callable[[str], Path], tmp_path: Path):
    """Quantiles and horizon differ from those that are assumed."""
    from parity_tests.forecasters import read_forecaster

    manifest = json.loads((recording("TimesFM_2") / "manifest.json").read_text())
    place = tmp_path / "case"
    shutil.copytree(recording("TimesFM_2"), place)
    manifest["config"] |= {"quantiles": [0.5], "horizon_len": 80}
    (place / "manifest.json").write_text(json.dumps(manifest))
    found = read_forecaster(place)
    assert found.settings["horizon_length"] == 80
    assert found.settings["use_positional_embedding"] is False
    report = parity_of(found.path, recording("TimesFM_2"), tmp_path)
    assert any("horizon_length = 80" in note for note in report)


def parity_of(against: str, case: Path, tmp_path: Path) -> list[str]:
    convert(case / "checkpoint", tmp_path / "out")
    return list(parity(tmp_path / "out", against, only="fwd/mu").notes)
