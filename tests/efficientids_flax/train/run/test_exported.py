"""What an export knows of its model: from the directory of the run alone."""

import json
import shutil
import warnings
from typing import Any

import jax
import numpy as np
import pytest
from click.testing import CliRunner

from efficientids_flax import load_model, recommend
from efficientids_flax.commands.program import main
from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.models import SimpleEfficientIDSModel
from efficientids_flax.data.files import next_items
from efficientids_flax.data.markov import MarkovItems
from efficientids_flax.evaluation import evaluate_stored
from efficientids_flax.stored import ItemNames, read_item_names, training_of
from efficientids_flax.stored.item_names import write_item_names
from efficientids_flax.train import Trainer
from efficientids_flax.train.history import read_history
from efficientids_flax.train.optimizer import create_optimizer
from efficientids_flax.train.run import export_described
from tests.efficientids_flax.train.networks import numbers_of

CONFIG = """
model: {kind: simple, item_embedding_dim: 8, model_dims: 16, num_layers: 1, num_heads: 2}
training: {progress: none, plot: false, log_every: 2, eval_every: 2}
checkpoint: {save_every: 2, keep_best: eval_loss}
optimizer: {ema_decay: 0.9}
data: {batch_size: 8}
"""
ITEMS, T = 12, 6
NAMES = ItemNames(
    tuple(f"tt{item}" for item in range(ITEMS)),
    tuple(f"Film {item}" if item else None for item in range(ITEMS)),
)


def call(*arguments: Any, code: int = 0) -> Any:
    end = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert end.exit_code == code, end.output
    return end


@pytest.fixture(scope="module")
def ran(tmp_path_factory: Any) -> Any:
    """(directory of a run, what it exported without its data, the clustering)."""
    root = tmp_path_factory.mktemp("ran")
    process = MarkovItems.random(num_clusters=3, cluster_size=ITEMS // 3)
    data = root / "data"
    data.mkdir()
    for index, split in enumerate(("train", "eval")):
        np.savez(data / f"{split}.npz", sequences=process.sequences(32, T + 1, seed=index))
    process.clustering.save(data / "clustering.npz")
    write_item_names(data, NAMES)
    (root / "run.yaml").write_text(CONFIG)
    shared = ("--config", root / "run.yaml", "--data-dir", data, "--output-dir", root / "run")
    call("train", *shared, "--num-steps", 6, "--lr", 0.01)
    without = ("--set", "checkpoint.keep_best=null", "--json")
    (root / "evaluated.json").write_text(call("evaluate", *shared, *without).stdout)
    shutil.rmtree(data)
    call("export", "--output-dir", root / "run", root / "out")
    return root / "run", root / "out", process.clustering


def test_says_what_the_model_was_trained_on(ran: Any):
    run, out, clustering = ran
    training = training_of(out)
    rows = [row for row in read_history(run) if "eval_loss" in row]
    best = min(rows, key=lambda row: row["eval_loss"])
    assert training["step"] == best["step"]  # the best, though nothing names `keep_best` here
    assert training["metrics"]["eval_loss"] == pytest.approx(best["eval_loss"])
    evaluated = json.loads((run.parent / "evaluated.json").read_text())  # nor there
    assert evaluated["step"] == best["step"]
    assert evaluated["eval_loss"] == pytest.approx(best["eval_loss"])
    assert training["sequence_length"] == T
    assert training["clustering"]["digest"] == clustering.digest()
    assert read_item_names(out) == NAMES


def test_the_length_is_that_of_the_longest_batch_so_far(tmp_path: Any):
    model = SimpleEfficientIDSModel(
        num_items=ITEMS, item_embedding_dim=4, model_dims=4, num_layers=1, num_heads=1,
        full_softmax=True,
    )  # fmt: skip
    rows = [np.arange(8 * (length + 1)).reshape(8, -1) % ITEMS for length in (3, 5, 3)]
    made, later = (
        Trainer(model, create_optimizer(0.1, "sgd"), tmp_path / "run", progress="none", plot=False)
        for _ in range(2)
    )
    batches = [next_items(each) for each in rows]
    given = numbers_of(model)
    state = made.create_train_state(jax.random.key(0), batches[0], params=given)
    state = made.train(state, batches, [batches[0]], num_steps=3)
    made.export(state, tmp_path / "out")
    assert training_of(tmp_path / "out")["sequence_length"] == 5
    begun = later.create_train_state(jax.random.key(0), batches[0], params=given)
    restored = later.restore(begun)
    later.export(restored, tmp_path / "later")
    assert training_of(tmp_path / "later") == training_of(tmp_path / "out")
    call("export", "--output-dir", tmp_path / "run", tmp_path / "again")
    assert training_of(tmp_path / "again")["sequence_length"] == 5


def test_averages_are_exported_as_the_run_evaluates_them(ran: Any, tmp_path: Any):
    run, out, _ = ran
    call(
        "export", "--output-dir", run, tmp_path / "raw", "--set", "training.evaluate_average=false"
    )
    averaged, raw = (load_model(place).params for place in (out, tmp_path / "raw"))
    kernels = [params["item_embedding"]["kernel"] for params in (averaged, raw)]
    assert not np.array_equal(*kernels)


def test_a_longer_history_is_cut_to_the_trained_length_and_said(ran: Any):
    model, params, _ = load_model(ran[1])
    history = [item % ITEMS for item in range(3 * T)]
    with pytest.warns(UserWarning, match="1 of 2 histories have more than the 6 ids"):
        cut = recommend(model, params, [history, history[:3]], k=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same = recommend(model, params, [history[-T:], history[:3]], k=3)
        asked = recommend(model, params, [history], k=3, max_history=3 * T)
    assert np.array_equal(cut.scores, same.scores)
    assert not np.array_equal(asked.scores[0], same.scores[0])
    seen = recommend(model, params, [history[-T:]], k=ITEMS, exclude_seen=True).ids[0]
    assert not set(seen.tolist()) & set(history[-T:])
    with pytest.raises(ValueError, match=r"history 0: found \[\] of int64, expected a list of ids"):
        recommend(model, params, history, k=3)  # pyright: ignore[reportArgumentType]


def test_a_run_that_is_not_there_is_missed_and_not_its_data(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"checkpoint.dir: .*/none: no checkpoint is there"):
        export_described({"checkpoint": {"dir": str(tmp_path / "none")}}, tmp_path / "out")


def test_the_command_says_so_too_and_names_the_items(ran: Any):
    history = ",".join(str(item % ITEMS) for item in range(3 * T))
    asked = ("recommend", "--checkpoint", ran[1], "--input-items", history, "--top-k", 2)
    end = call(*asked, "--json")
    assert "more than the 6 ids" in end.stderr
    found = json.loads(end.stdout)
    assert found["item_ids"] == [f"tt{item}" for item in found["items"]]
    assert found["titles"] == [NAMES.titles[item] for item in found["items"]]
    end = call(*asked, "--max-history", 18)
    assert end.stderr == ""
    assert "title" in end.stdout.splitlines()[0]


def test_another_clustering_is_refused(ran: Any):
    other = ClusteringInfo.from_assignments(np.arange(ITEMS) % 3)
    with pytest.raises(ValueError, match=r"clustering: found another .* was trained"):
        load_model(ran[1], clustering=other)


def test_data_of_another_catalogue_is_not_evaluated_on(ran: Any, tmp_path: Any):
    for split in ("train", "eval"):
        np.savez(tmp_path / f"{split}.npz", sequences=np.arange(14).reshape(2, 7) % 9)
    write_item_names(tmp_path, ItemNames(tuple("abcdefghijkl"), (None,) * ITEMS))
    with pytest.raises(ValueError, match="was made of another catalogue"):
        evaluate_stored(ran[1], tmp_path, "eval")
    (tmp_path / "items.jsonl").unlink()
    ClusteringInfo.from_assignments(np.arange(9) // 3).save(tmp_path / "clustering.npz")
    with pytest.raises(ValueError, match=r"has 12 items, .* has 9: it is of another"):
        evaluate_stored(ran[1], tmp_path, "eval")


def test_a_run_that_goes_on_is_described_anew(ran: Any, tmp_path: Any):
    """Of an older release there is no description: then the model and the data are asked for."""
    run = tmp_path / "run"
    shutil.copytree(ran[0], run)
    shutil.rmtree(run / "model")
    end = call("export", "--output-dir", run, tmp_path / "out", code=1)
    assert "train.npz" in end.output or "dir: missing" in end.output


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1, 2]", r"items.jsonl:2: expected"),
        ('{"id": "a", "name": "b"}', r"items.jsonl:2: expected"),
        ('{"id": 1.5}', r"items.jsonl:2: id: found 1.5"),
        ('{"id": ', r"items.jsonl:2: is no JSON"),
    ],
)
def test_wrong_names_are_told_with_their_line(tmp_path: Any, line: str, message: str):
    (tmp_path / "items.jsonl").write_text('{"id": 7, "title": "A"}\n' + line + "\n")
    with pytest.raises(ValueError, match=message):
        read_item_names(tmp_path)
    assert read_item_names(tmp_path / "nowhere") is None
    assert NAMES.problems(ITEMS) == []
    assert NAMES.problems(ITEMS + 1) == ["found 12 items, the model has 13"]
