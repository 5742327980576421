"""Runs on directories of data: what was prepared goes in, raw ids come out."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from efficientids_flax.commands.program import main
from efficientids_flax.config import BackboneConfig, EfficientIDSConfig, RotaryConfig
from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.models import EfficientIDSModel
from efficientids_flax.data import Batches, read_data
from efficientids_flax.evaluation import EvaluationOptions, evaluate_stored
from efficientids_flax.stored import read_item_names
from efficientids_flax.train.run import built, evaluate, evaluate_run, export_described, train
from efficientids_flax.train.run.data_section import DataSection, batches_of
from efficientids_flax.train.state import RunMismatch
from tests.efficientids_flax.data.directories import EVENTS, ITEMS, write_prepared

SMALL = {"kind": "simple", "item_embedding_dim": 4, "model_dims": 8, "num_layers": 1,
         "num_heads": 1, "full_softmax": True}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("data") / "prepared")


def call(*arguments: Any) -> str:
    end = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert end.exit_code == 0, end.output
    return end.output


def test_a_run_on_prepared_data_keeps_the_raw_ids(root: Path, tmp_path: Path):
    config = tmp_path / "run.json"
    sections: dict[str, Any]
    sections = {"model": SMALL, "data": {"dir": str(root), "batch_size": 2, "length": 4},
                "training": {"progress": "lines", "plot": False, "exclude_seen": True},
                "checkpoint": {"dir": str(tmp_path / "run")}}  # fmt: skip
    config.write_text(json.dumps(sections))
    said = call("train", "--config", config, "--num-steps", 3, "--json")
    assert "data: train: 3 of 6 users have fewer than two events to train on" in said
    found = json.loads(said.splitlines()[-1])
    assert found["steps"] == 3
    assert found["test_num_predictions"] == 4  # each person once, but one without an event before
    call("export", "--config", config, tmp_path / "model")
    names = read_item_names(tmp_path / "model")  # by which `recommend` takes and gives raw ids
    assert names is not None
    assert (names.ids[9], names.titles[9]) == ("film,9", "title 9")
    # Who is not asked is told: of a run by its rows; an export is asked all of a history.
    long = [([1, *range(2, 9)], [0, 0, *[2] * 6]), *EVENTS]
    other = str(write_prepared(tmp_path / "long", long))
    options = EvaluationOptions(resamples=0)
    run = sections | {"data": {**sections["data"], "dir": other}}
    of_run = evaluate_run(run, "test", options=options).found.notes
    of_model = evaluate_stored(tmp_path / "model", other, "test", options).found.notes
    left_out = "test: 2 held-out events of users with more than 4 are left out"
    assert [left_out in " ".join(notes) for notes in (of_run, of_model)] == [True, False]


def sections(root: Path, **data: Any) -> dict[str, Any]:
    return {"model": dict(SMALL), "data": {"dir": str(root), "batch_size": 2, **data},
            "training": {"progress": "none"}}  # fmt: skip


def test_what_the_model_needs_to_know_comes_from_the_data(root: Path, tmp_path: Path):
    made = built(sections(root, length=3, pack=True, windows="prefixes", seed=4))
    train, test = made["data"]["train_iter_fn"], made["data"]["test_iter_fn"]
    assert isinstance(train, Batches)
    assert (train.seed, train.epochs, train.shuffle) == (4, None, True)
    assert (test.epochs, test.shuffle, test.drop_remainder) == (1, False, False)
    assert "segment_ids" in train.first()
    assert made["model"]["module"].num_items == ITEMS
    assert made["data"]["items"].titles[3] == "title 3"
    write_prepared(tmp_path)
    vectors = np.arange(4.0 * ITEMS, dtype=np.float32).reshape(ITEMS, 4)
    np.save(tmp_path / "embeddings.npy", vectors)
    np.savetxt(tmp_path / "items.txt", vectors)
    for name in ("data", str(tmp_path / "items.txt")):
        given = sections(tmp_path)
        given["model"]["item_embedding_init"] = name
        init = built(given)["model"]["module"].item_embedding_init
        np.testing.assert_array_equal(init(None, (4, ITEMS), np.float32), vectors.T)


def test_items_are_marked_for_a_model_that_knows_words(root: Path):
    sizes = {"model_dims": 4, "hidden_dims": 4, "num_heads": 1, "num_kv_heads": 1, "head_dim": 4}
    words = BackboneConfig(vocab_size=9, num_layers=1, **sizes)
    model = SimpleNamespace(config=EfficientIDSConfig(
        backbone=words, num_items=ITEMS, item_embedding_dim=4, full_softmax=True
    ))  # fmt: skip
    directory, section = read_data(root), DataSection(str(root), 2)
    found = batches_of(directory, section, model)["test_iter_fn"].rows.arrays()
    np.testing.assert_array_equal(found["input_item_weights"], 1 - found["paddings"])
    np.testing.assert_array_equal(found["label_item_weights"], found["weights"])


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer of whole words."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    names = ["<unk>", "</s>", "title", "next", *map(str, range(ITEMS))]
    made = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, "<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = tmp_path_factory.mktemp("tokenizer")
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    return folder


def test_texts_between_the_items(root: Path, tokenizer: Path):
    """A tokenizer of a folder; one item is asked for after the titles of those before it."""
    prompt = {"tokenizer": str(tokenizer), "form": "{title} {item} ", "after": "next"}
    made = built(sections(root, length=12, windows="prefixes", prompt=prompt))["data"]
    rows = made["train_iter_fn"].rows.arrays()
    # title 3 [3] next | [1] </s>: the first of the events 3, 1, 4, 1
    assert rows["ids"][0].tolist() == [2, 7, 3, 3, 1, 1, 0, 0, 0, 0, 0, 0]
    assert rows["weights"][0].tolist() == [0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0]
    assert len(made["test_iter_fn"].rows.arrays()["ids"]) == 4


def test_a_model_of_texts_is_asked_with_them_by_all_commands(
    root: Path, tokenizer: Path, tmp_path: Path
):
    """The export's evaluation is the run's own, and `recommend` needs nothing but the raw ids."""
    sizes = {"model_dims": 8, "hidden_dims": 8, "num_heads": 1, "num_kv_heads": 1, "head_dim": 8}
    words = BackboneConfig(vocab_size=14, num_layers=1, rotary=RotaryConfig(), **sizes)
    model = EfficientIDSModel(EfficientIDSConfig(
        backbone=words, num_items=ITEMS, item_embedding_dim=8, full_softmax=True
    ))  # fmt: skip
    prompt = {"tokenizer": str(tokenizer), "before": "next", "form": "{item} {title} ", "end": [],
              "learn": "every", "items": 4}  # fmt: skip
    given = sections(root, length=16, prompt=prompt) | {"model": {"module": model}}
    given["optimizer"] = {"learning_rate": 0.1}
    given["training"] |= {"num_steps": 3, "exclude_seen": True, "num_eval_batches": 1}
    given["checkpoint"] = {"dir": str(tmp_path / "run")}
    train(built(given))
    export_described(given, tmp_path / "model")
    options = EvaluationOptions(cutoffs=(5,), resamples=0)
    found = evaluate_run(given, "test", options=options).found
    stored = evaluate_stored(tmp_path / "model", root, "test", options).found
    assert stored.values() == pytest.approx(found.values(), rel=1e-6)
    parts = [[(one.name, one.users) for one in each.segments] for each in (stored, found)]
    assert parts[0] == parts[1]  # users with short and with long histories are the same
    asked = ("recommend", "--checkpoint", tmp_path / "model", "--top-k", 3, "--json")
    (tmp_path / "histories.jsonl").write_text('{"raw_ids": ["film,3", "film,1"]}')
    best = json.loads(call(*asked, "--input-file", tmp_path / "histories.jsonl"))
    # next [3] title 3 [1] title 1: the same as words and items of one's own.
    own = json.loads(call(*asked, "--input-ids", "3,3,2,7,1,2,5", "--item-mask", "0,1,0,0,1,0,0"))
    assert best["item_ids"] == [f"film,{item}" for item in own["items"]]
    assert best["probability"] == pytest.approx(own["probability"], rel=1e-5)

    # Another tokenizer, of the same words, which makes other tokens of the titles.
    other = shutil.copytree(tokenizer, tmp_path / "tokenizer")
    made = json.loads((other / "tokenizer.json").read_text())
    (other / "tokenizer.json").write_text(json.dumps({**made, "pre_tokenizer": None}))
    given["data"] |= {"prompt": {**prompt, "tokenizer": str(other)}}
    for answer in (evaluate, train):  # whose run has ended
        with pytest.raises(RunMismatch, match="tokenizer: tokens of the texts was"):
            answer(built(given))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"windows": "some"}, "windows: expected 'all'"),
        ({"length": 0}, "length: expected above 0, found 0"),
        ({"workers": -1}, "workers: expected at least 0, found -1"),
        ({"prompt": {"form": "{item}"}}, r"prompt: PromptSection: 1 problem:\s+tokenizer: missing"),
        (
            {"prompt": {"tokeniser": "x"}},
            r"tokeniser: unknown key; did you mean tokenizer",
        ),
        ({"stride": 60}, r"stride: expected in \[1, 50\]"),
        ({"batch_size": 60}, r"batch_size: expected in \[1, 3\], the rows there are, found 60"),
    ],
)
def test_what_is_wrong_is_named(data: dict[str, Any], message: str, root: Path):
    with pytest.raises(ValueError, match=message):
        built(sections(root, **data))


def test_what_arrays_do_not_take_is_named(tmp_path: Path):
    np.savez(tmp_path / "train.npz", sequences=np.array([[1, 2, 3], [3, 2, 1]]))
    with pytest.raises(ValueError, match=r"data.length, pack: .* holds finished rows"):
        given = sections(tmp_path, length=3, pack=True)
        given["model"]["num_items"] = 4
        built(given)


def test_what_is_of_another_catalogue_is_refused(root: Path, tmp_path: Path):
    """A converted or exported model whose items have other raw ids, and other embeddings."""
    (tmp_path / "items.jsonl").write_text('{"id": "a"}\n' * ITEMS)
    given = sections(root)
    given["model"] = {"kind": "converted", "path": str(tmp_path)}
    with pytest.raises(ValueError, match=f"model: {tmp_path}: was made of another catalogue .10"):
        built(given)
    given["model"] = {**SMALL, "item_embedding_init": str(tmp_path / "x.npy")}
    np.save(tmp_path / "x.npy", np.ones((9, 4), np.float32))
    with pytest.raises(
        ValueError, match=r"x.npy: has 9 items, .* has 10: it is of another catalog"
    ):
        built(given)
    write_prepared(tmp_path / "data")
    tables = ClusteringInfo.from_assignments(np.zeros(ITEMS, int), catalogue="e" * 64)
    tables.save(tmp_path / "data" / "clustering.npz")
    with pytest.raises(ValueError, match=r"clustering.npz: was made of another catalogue"):
        built(sections(tmp_path / "data"))
