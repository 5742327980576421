"""The command: what it prints, what it reads, how it fails."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from converters import convert_paxml_checkpoint
from efficientids_flax.backbone import Decoder
from efficientids_flax.inference import recommend
from efficientids_flax.inference.commands.recommend import recommend as command
from efficientids_flax.stored import Config, ItemNames
from efficientids_flax.stored.item_names import write_item_names
from efficientids_flax.stored.load import Loaded
from parity_tests.cases import OUTPUTS
from tests.efficientids_flax.inference.inference_cases import BACKBONE, CONFIG, MODEL, PARAMS


def test_a_converted_checkpoint_from_the_shell(recording: Callable[[str], Path], tmp_path: Path):
    """The items that the real system scored best, from its checkpoint and its clustering."""
    case = recording("b_everywhere")
    convert_paxml_checkpoint(case / "checkpoint", tmp_path / "out", optimizer="none")
    with np.load(OUTPUTS / "b_everywhere" / "arrays.npz") as recorded:
        best = recorded["passes/eval/outputs/top10_indices"][0, 9]
        ids, is_item = (recorded[f"inputs/{name}"][0] for name in ("ids", "input_item_weights"))
    assert ids[0] == is_item[0] == 0  # <sos>
    history, mask = ids[1:10], is_item[1:10]
    command = [
        sys.executable, "-m", "efficientids_flax.inference", "--checkpoint", tmp_path / "out",
        "--clustering", case / "clustering.pkl", "--input_ids", ",".join(map(str, history)),
        "--item_mask", ",".join(str(int(value)) for value in mask), "--scores", "original",
        "--json",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    words = 128  # come first among the recorded classes
    assert json.loads(done.stdout)["items"] == (best - words).tolist()


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """OUT is the model above, 'lm' a language model, all else is missing."""

    def load(path: str, clustering: Any = None, *, dtype: Any = None) -> Loaded:
        if path == "lm":
            return Loaded(Decoder(BACKBONE), {}, Config("transformer_lm", BACKBONE, None))
        if path != "OUT":
            raise FileNotFoundError(f"{path}: no config.json; give the OUT directory")
        return Loaded(MODEL, PARAMS, Config("efficientids", CONFIG, None))

    monkeypatch.setattr("efficientids_flax.stored.load_model", load)


def run(*arguments: str, text: str | None = None) -> Result:
    return CliRunner().invoke(command, list(arguments), input=text)


OUT = ("--checkpoint", "OUT")


@pytest.mark.usefixtures("loaded")
def test_the_command_prints_a_table():
    found = run(*OUT, "--input_items", "3,17,29", "--top_k", "3")
    assert found.exit_code == 0, found.output
    wanted = recommend(MODEL, PARAMS, [[3, 17, 29]], 3)
    rows = [line.split() for line in found.output.splitlines()]
    assert rows[0] == ["rank", "item", "probability"]
    assert [(row[0], int(row[1])) for row in rows[1:]] == [
        (str(place + 1), item) for place, item in enumerate(wanted.ids[0])
    ]
    shown = [float(row[2]) for row in rows[1:]]
    np.testing.assert_allclose(shown, np.exp(wanted.scores[0]), rtol=1e-5)  # six digits


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize("joint", ["_", "-"])
def test_flags_with_either_joint(joint: str):
    flags = (
        "--input_items",
        "3,17",
        "--top_k",
        "30",
        "--exclude_seen",
        "--exclude",
        "4, 5",
        "--json",
    )
    found = run(*OUT, *(f.replace("_", joint) if f.startswith("--") else f for f in flags))
    assert found.exit_code == 0, found.output
    answer = json.loads(found.stdout)
    assert "the history has fewer items than --top-k 30: the others are left out" in found.stderr
    wanted = recommend(MODEL, PARAMS, [[3, 17]], 26, exclude=[[3, 17, 4, 5]])
    assert answer["items"] == wanted.ids[0].tolist()  # those that are left, no -1
    assert answer["probability"] == pytest.approx(np.exp(wanted.scores[0]).tolist(), rel=1e-6)


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize(
    ("flag", "scoring"),
    [("log-probability", "log_probs"), ("log_probability", "log_probs"), ("original", "original")],
)
def test_other_scores(flag: str, scoring: Any):
    found = run(*OUT, "--input_items", "3", "--scores", flag, "--json")
    assert found.exit_code == 0, found.output
    answer = json.loads(found.output)
    wanted = recommend(MODEL, PARAMS, [[3]], 10, scoring=scoring)
    assert answer["items"] == wanted.ids[0].tolist()
    assert answer[flag.replace("-", "_")] == pytest.approx(wanted.scores[0].tolist(), rel=1e-6)


@pytest.mark.usefixtures("loaded")
def test_words_on_the_command_line():
    found = run(*OUT, "--input-ids", "9,17,2", "--item-mask", "0,1,0", "--json")
    assert found.exit_code == 0, found.output
    wanted = recommend(MODEL, PARAMS, [[9, 17, 2]], 10, item_masks=[[0, 1, 0]])
    assert json.loads(found.output)["items"] == wanted.ids[0].tolist()


FILE = """3,17,29

[0]
{"items": [5, 5, 4], "exclude": [1, 2]}
{"ids": [9, 17], "item_mask": [0, 1]}
"""


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize("batch_size", ["1", "3", "64"])
def test_a_file_of_histories(batch_size: str, tmp_path: Path):
    file = tmp_path / "histories.jsonl"
    file.write_text(FILE)
    found = run(*OUT, "--input_file", str(file), "--batch-size", batch_size, "--json")
    assert found.exit_code == 0, found.output
    answers = [json.loads(line) for line in found.output.splitlines()]
    wanted = recommend(
        MODEL, PARAMS, [[3, 17, 29], [0], [5, 5, 4], [9, 17]], 10,
        item_masks=[[1, 1, 1], [1], [1, 1, 1], [0, 1]], exclude=[[], [], [1, 2], []],
    )  # fmt: skip
    assert [answer["line"] for answer in answers] == [f"{file}:{n}" for n in (1, 3, 4, 5)]
    assert [answer["items"] for answer in answers] == wanted.ids.tolist()


@pytest.mark.usefixtures("loaded")
def test_histories_from_standard_input():
    found = run(*OUT, "--input-file", "-", text="3,17\n")
    assert found.exit_code == 0, found.output
    assert found.output.splitlines()[0] == "-:1"


NAMES = ItemNames((*(f"tt{item}" for item in range(28)), "a,b", None), ("title",) * 30)


@pytest.mark.usefixtures("loaded")
def test_items_by_the_ids_of_the_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """They go in and come out: the same answer as by numbers."""
    monkeypatch.chdir(tmp_path)
    Path("OUT").mkdir()
    write_item_names("OUT", NAMES)
    numbered = run(*OUT, "--input-items", "3,17", "--exclude", "5,28", "--json")
    wanted = json.loads(numbered.output)
    assert wanted["item_ids"] == [NAMES.ids[item] for item in wanted["items"]]
    found = run(*OUT, "--input-raw-ids", "tt3, tt17", "--exclude", "28", "--exclude-raw-ids", "tt5",
                "--json")  # fmt: skip
    assert json.loads(found.output) == wanted, found.output
    line = {"raw_ids": ["tt3", "tt17"], "exclude": [5], "exclude_raw_ids": ["a,b"]}
    found = run(*OUT, "--input-file", "-", "--json", text=json.dumps(line))
    assert json.loads(found.output) == {"line": "-:1", **wanted}
    for given, message in (
        (("--input-raw-ids", "tt3,t17"), "OUT has no item with the raw id 't17'; did you mean 'tt"),
        (("--input-file", "-"), "-:1: raw_ids: found [1.5], expected a list of texts"),
    ):
        found = run(*OUT, *given, text='{"raw_ids": [1.5]}')
        assert (found.exit_code, message in found.output) == (1, True), found.output
    for names, message in (
        (NAMES._replace(ids=("x",) * 30), "several items have the raw id 'x'"),
        (NAMES._replace(ids=(None,) * 30), "OUT: its items have no raw ids"),
    ):
        write_item_names("OUT", names)
        found = run(*OUT, "--input-raw-ids", "x")
        assert (found.exit_code, message in found.output) == (1, True), found.output


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,99", r":2: item 99 at place 1 is outside of [0, 30)"),
        ("1,x", ":2: 'x' is not a whole number, in '1,x'"),
        ("{", ":2: is not JSON"),
        ('{"item": [1]}', ":2: item: unknown key; known are items, ids, item_mask, exclude"),
        ('{"items": [1.5]}', ":2: items: found [1.5], expected a list of whole numbers"),
        ('{"items": 3}', ":2: items: found 3, expected a list of whole numbers"),
        ('{"ids": [1]}', ":2: found ids; expected items, or ids and item_mask"),
        ("{}", ":2: found no ids; expected items"),
        ('{"ids": [1], "item_mask": [1, 0]}', ":2: item mask [1, 0], expected 1 times 0 or 1"),
    ],
)
def test_a_line_that_is_no_history(line: str, message: str, tmp_path: Path):
    file = tmp_path / "histories.jsonl"
    file.write_text(f"3\n{line}\n")
    found = run(*OUT, "--input-file", str(file))
    assert found.exit_code == 1
    assert f"{file}{message}" in found.output
    assert "Traceback" not in found.output


@pytest.mark.usefixtures("loaded")
def test_a_wrong_line_is_found_before_the_first_answer(tmp_path: Path):
    """However far behind it is, and with all others."""
    file = tmp_path / "histories.jsonl"
    long = ",".join(["1"] * 18)
    file.write_text(f'3\n4\n5,30\n{{"items": [6], "exclude": [31]}}\n7\n{long}\n')
    done = run(*OUT, "--input-file", str(file), "--batch-size", "1", "--exclude", "2,-1")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "Error: histories:",
        f"  {file}:3: item 30 at place 1 is outside of [0, 30)",
        f"  {file}:6: 18 ids, the model's 20 positions have room for 17"
        " (max_history=17 takes the last ones)",
        f"  {file}:4: exclude: 31 is outside of [0, 30)",
        "  --exclude: -1 is outside of [0, 30)",
    ]
    cut = run(*OUT, "--input-items", long, "--max-history", "17")
    assert cut.exit_code == 0, cut.output


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((*OUT, "--input-items", "1,30"), 1, "the history: item 30 at place 1 is outside of"),
        ((*OUT, "--input-items", "1", "--top-k", "31"), 1, "k: expected in [1, 30]"),
        (("--checkpoint", "none", "--input-items", "1"), 1, "none: no config.json"),
        (("--checkpoint", "lm", "--input-items", "1"), 1, "lm: is a language model; it has no"),
        ((*OUT, "--input-file", "none.jsonl"), 1, "none.jsonl"),
        ((*OUT, "--input-file", "-"), 1, "-: holds no history"),
        ((*OUT, "--input-items", "1;2"), 2, "'1;2' is not a whole number"),
        ((*OUT, "--input-items", "1", "--top-k", "0"), 2, "0 is not in the range x>=1"),
        ((*OUT,), 2, "give one of --input-items, --input-ids, --input-file"),
        ((*OUT, "--input-items", "1", "--input-file", "-"), 2, "give one of"),
        ((*OUT, "--input-ids", "1"), 2, "--input-ids and --item-mask go together"),
        ((*OUT, "--input-items", "1", "--item-mask", "1"), 2, "go together"),
        (("--input-items", "1"), 2, "Missing option '--checkpoint'"),
        ((*OUT, "--input-items", "1", "--scores", "rank"), 2, "Invalid value for '--scores'"),
    ],
)  # fmt: skip
def test_errors_and_exit_codes(arguments: tuple[str, ...], code: int, message: str):
    found = run(*arguments, text="")
    assert (found.exit_code, message in found.output) == (code, True), found.output
    assert "Traceback" not in found.output
