"""The command parity-check, and its reports."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner, Result

from parity_tests.cases import recordings
from parity_tests.commands.parity import parity
from parity_tests.readers import read
from parity_tests.run import in_dtype

NAME = "LlamaRepeatEma_v00flax_file"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(parity, list(map(str, arguments)))


@pytest.fixture
def changed(tmp_path: Path) -> Callable[..., Path]:
    """`changed(edit)`: a copy of the recording with its arrays edited in place."""

    def make(edit: Callable[[dict[str, np.ndarray]], None]) -> Path:
        place = Path(shutil.copytree(recordings()[NAME], tmp_path / "changed"))
        with np.load(place / "arrays.npz") as file:
            arrays = {key: file[key] for key in file.files}
        edit(arrays)
        np.savez(place / "arrays.npz", **arrays)  # pyright: ignore[reportArgumentType]
        return place

    return make


def logits_moved(arrays: dict[str, np.ndarray]) -> None:
    arrays["passes/first_row/outputs/logits"] = arrays["passes/first_row/outputs/logits"] + 1e-3


def test_agreement(converted):
    result = run(converted(NAME), "--against", recordings()[NAME])
    assert result.exit_code == 0, result.output
    assert re.search(r"^\d\d values agree with paxml", result.output, re.MULTILINE)
    lines = result.output.splitlines()
    header = "pass name shape max abs max rel allowed ULPs verdict"
    assert " ".join(lines[0].split()) == header
    assert not [line for line in lines if "DIFFERS" in line]


def test_a_difference_fails_and_is_reported_everywhere(converted, changed, tmp_path, monkeypatch):
    # No setting explains it, so the search would use all of its time, a minute.
    monkeypatch.setattr("parity_tests.hints.signatures.SECONDS", 0)
    junit, html = tmp_path / "report" / "junit.xml", tmp_path / "report" / "page.html"
    place = changed(logits_moved)
    result = run(converted(NAME), "--against", place, "--junit", junit, "--html", html)
    assert result.exit_code == 1
    assert "first differs at outputs/logits in pass first_row" in result.output

    suite = ElementTree.parse(junit).getroot()[0]
    failed = [case for case in suite if case.find("failure") is not None]
    assert [case.get("name") for case in failed] == ["outputs/logits"]
    assert suite.get("failures") == "1"
    assert int(suite.get("tests") or 0) == len(suite) > 20

    page = html.read_text()
    assert page.count('class="first fails"') == 1
    assert "<svg" in page and page.count("<circle") == 8
    assert not re.search(r"""(src|href)=|url\(|@import|<script""", page), "the file needs others"


def test_settings_of_the_user_go_first(converted):
    result = run(converted(NAME), "--against", recordings()[NAME], "--set", "norm_epsilon=0.1")
    assert result.exit_code == 1
    assert "note: norm_epsilon = 0.1: given" in result.output
    assert re.search(r"hint: the norms have another epsilon.*--set norm_epsilon=", result.output)


def test_each_setting_is_shown_with_its_origin(converted, tmp_path):
    html = tmp_path / "page.html"
    arguments = converted(NAME), "--against", recordings()[NAME], "--html", html
    given = ("--set", "rotary.max_timescale=1e4")
    line = next(
        line
        for line in run(*arguments, *given).output.splitlines()
        if line.startswith("settings: ")
    )
    assert re.fullmatch(r"settings: \d+ (assumed|tree).*, 1 given.*", line)
    settings = json.loads(run(*arguments, *given, "--json").output)["settings"]
    assert settings["num_layers"] == {"value": 3, "from": "tree"}
    assert settings["norm_epsilon"]["from"] in ("assumed", "recording")
    assert settings["rotary.max_timescale"]["from"] == "given"
    assert settings["optimizer.name"]["from"] == "tree"
    page = html.read_text()
    assert "<tr><td>num_layers<td>3<td>tree" in page
    assert '<tr class="fails"><td>query_scaling<td>inverse_sqrt_head_dim<td>assumed' in page


def test_only_some_names(converted):
    arguments = converted(NAME), "--against", recordings()[NAME], "--only"
    result = run(*arguments, "outputs/*xent")
    assert result.exit_code == 0, result.output
    rows = [line for line in result.output.splitlines()[1:-1] if not line.startswith("settings: ")]
    names = {line.split()[0] for line in rows}
    assert names and all(re.fullmatch(r"outputs/\w*xent", name) for name in names)
    assert "no name matches 'nothing*'" in run(*arguments, "nothing*").output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere", "--against", "nowhere"], 1, "nowhere: no such directory"),
        (["nowhere"], 2, "Missing option '--against'"),
        (["nowhere", "--against", "x", "--set", "a"], 2, "'a' is not KEY=VALUE"),
        (["nowhere", "--against", "x", "--dtype", "int8"], 2, "'int8' is not one of"),
    ],
)
def test_mistakes_are_one_message(arguments, code, message):
    result = run(*arguments)
    assert result.exit_code == code
    assert message in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("name", "dtype", "message"),
    [
        (
            NAME,
            "bfloat16",
            "is in float32: .*Give a recording in bfloat16, best with its values in f",
        ),
        (NAME, "float16", "is in float32: .*Give a recording in float16"),
        ("Bf16", "float16", "is in bfloat16: .*Give a recording in float16"),
        ("Bf16", "float32", "is in bfloat16: .*Give a recording in float32"),
    ],
)
def test_a_dtype_in_which_there_is_nothing_to_compare_with(name, dtype, message):
    """It used to compare with a distance of zero, and to fail whatever the model was."""
    result = run("not looked at", "--against", recordings()[name], "--dtype", dtype)
    assert result.exit_code == 1
    assert re.search(f"dtype: found {dtype}, the recording .* {message}", result.output)


@pytest.mark.parametrize(("name", "dtype"), [(NAME, "float32"), ("Bf16", "bfloat16")])
def test_the_recorded_dtype_may_be_said(name, dtype):
    recording = read(recordings()[name])
    assert in_dtype(recording, dtype) == in_dtype(recording, None) == recording


def test_unknown_settings_name_the_nearest(converted):
    result = run(converted(NAME), "--against", recordings()[NAME], "--set", "norm_epsilom=1")
    assert result.exit_code == 1
    assert "did you mean norm_epsilon?" in result.output


def test_a_name_that_no_table_has_fails(converted, changed):
    def add(arrays: dict[str, np.ndarray]) -> None:
        arrays["activations/lm/new_layer"] = np.zeros(3, np.float32)

    result = run(converted(NAME), "--against", changed(add))
    assert result.exit_code == 1
    assert "first failure at lm/new_layer: table 'praxis' does not have this name" in result.output


def test_what_is_not_compared_is_said(converted, changed):
    def pad(arrays: dict[str, np.ndarray]) -> None:
        for name in ("inputs/paddings", "passes/first_row/inputs/paddings"):
            arrays[name] = np.ones_like(arrays[name])
        arrays["inputs/prefix_lengths"] = np.zeros(2, np.int32)

    place = changed(pad)
    found = run(converted(NAME), "--against", place, "--only", "outputs/logits")
    assert found.exit_code == 1, "there is nothing but padding"
    assert "ignored: all of it is padding" in found.output
    found = run(converted(NAME), "--against", place, "--only", "inputs/*")
    assert "prefix_lengths" in found.output and "no model here reads such a field" in found.output


def test_ids_that_the_model_lacks_are_a_difference(converted, changed):
    """A word out of range is embedded as zeros, so all later layers differ."""

    def shift(arrays: dict[str, np.ndarray]) -> None:
        arrays["inputs/ids"] = arrays["inputs/ids"] + 10**6

    found = run(converted(NAME), "--against", changed(shift))
    assert found.exit_code == 1
    assert isinstance(found.exception, SystemExit), found.exception
    assert "first differs at" in found.output


def test_a_recording_of_another_kind_of_model(converted):
    result = run(converted(NAME), "--against", recordings()["b_everywhere"])
    assert result.exit_code == 1
    assert "recorded of a recommender, the checkpoint is a language_model" in result.output


def test_the_manifest_of_the_bundled_recordings_is_whole():
    for name, place in recordings().items():
        manifest = json.loads((place / "manifest.json").read_text())
        assert manifest["origin"] and manifest["versions"] and manifest["checkpoint"], name
