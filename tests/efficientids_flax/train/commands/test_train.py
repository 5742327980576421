"""The commands, on a small process with a directory of prepared data."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from efficientids_flax import host_memory
from efficientids_flax.commands.program import main
from efficientids_flax.data.files import next_items, read_data
from efficientids_flax.data.markov import MarkovItems
from efficientids_flax.inference.ranker import recommend
from efficientids_flax.stored.load import load_model
from efficientids_flax.train.state.disk.checkpoint import Checkpoints
from tests.efficientids_flax.compiled import applied

CONFIG = """
model: {kind: simple, item_embedding_dim: 8, model_dims: 16, num_layers: 1, num_heads: 2}
training: {progress: none, plot: false, log_every: 2}
data: {batch_size: 8}
"""
# Of what compiles fastest, where neither the model nor the optimizer is the point.
LEAST = """
model: {kind: simple, num_items: 12, item_embedding_dim: 4, model_dims: 4, num_layers: 1,
  num_heads: 1, full_softmax: true}
optimizer: {optimizer_type: sgd, clip_norm: null}
training: {progress: none, plot: false, log_every: 2}
data: {batch_size: 8}
"""


@pytest.fixture(scope="module")
def process():
    return MarkovItems.random(num_clusters=3, cluster_size=4)


@pytest.fixture(scope="module")
def prepared(process, tmp_path_factory):
    """Directory with data, clustering and a configuration."""
    root = tmp_path_factory.mktemp("prepared")
    (root / "processed").mkdir()
    for index, split in enumerate(("train", "valid", "test")):
        sequences = process.sequences(32, 7, seed=index)
        np.savez(root / "processed" / f"{split}.npz", sequences=sequences)
    process.clustering.save(root / "processed" / "clustering.npz")
    (root / "run.yaml").write_text(CONFIG)
    return root


@pytest.fixture(scope="module")
def training_alone(prepared, tmp_path_factory):
    """The same without data to evaluate on: each run compiles two programs less."""
    root = tmp_path_factory.mktemp("training_alone")
    (root / "processed").mkdir()
    shutil.copy(prepared / "processed" / "train.npz", root / "processed")
    (root / "run.yaml").write_text(LEAST)
    return root


def call(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_trains_goes_on_and_evaluates(prepared, tmp_path):
    shared = ("--config", prepared / "run.yaml", "--data_dir", prepared, "--output-dir", tmp_path)
    end = call("train", *shared, "--num_steps", 4, "--lr", 0.01, "--grad-clip", 1.0, "--json")
    assert end.exit_code == 0, end.output
    found = json.loads(end.output.splitlines()[-1])
    assert found["steps"] == 4
    assert {"loss", "eval_loss", "test_ndcg_at_10"} <= found.keys()
    end = call("train", *shared, "--num-steps", 6, "--set", "training.seed=1", "--json")
    assert json.loads(end.output.splitlines()[-1])["steps"] == 6
    # Of another number of steps nothing is said: it matters for training alone.
    end = call("evaluate", *shared, "--split", "test", "--step", 4, "--json", "--num-steps", 20,
               "--set", "training.progress=lines")  # fmt: skip
    assert end.exit_code == 0, end.output
    assert json.loads(end.output)["test_loss"] == pytest.approx(found["test_loss"], rel=1e-6)
    how = ("--report", tmp_path / "report", "--cutoffs", "1,5,10", "--keep-seen")
    end = call("evaluate", *shared, "--split", "test", "--step", 4, "--json", *how,
               "--resamples", 20)  # fmt: skip
    assert end.exit_code == 0, end.output
    told = json.loads(end.output)
    for name in ("recall_at_5", "mrr_at_10", "ndcg_at_10"):
        assert told[name] == pytest.approx(found[f"test_{name}"], rel=1e-5)
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["about"] == {
        "run": tmp_path.name, "step": 4, "data": prepared.name, "split": "test"
    }  # fmt: skip
    assert {part["by"] for part in report["segments"]} == {"items", "history"}


def test_options_that_belong_elsewhere_are_refused(prepared):
    shared = ("--config", prepared / "run.yaml", "--data_dir", prepared)
    for given, told in (
        ((*shared, "--cutoffs", "5"), "--cutoffs goes with --report or --checkpoint"),
        ((*shared, "--keep-seen"), "--keep-seen goes with --report or --checkpoint"),
        (("--checkpoint", "out", *shared), "--config is of a run; leave it out, or --checkpoint"),
        (("--checkpoint", "out"), "--checkpoint needs --data-dir"),
        ((*shared, "--report", "never", "--cutoffs", "5,0"), "0 is less than 1"),
    ):
        end = call("evaluate", *given)
        assert (end.exit_code, told in end.output) == (2, True), end.output


def test_what_a_run_made_is_exported_and_recommends(prepared, tmp_path, monkeypatch):
    """The averages of the parameters, since the run keeps them: what `evaluate` measures."""
    monkeypatch.chdir(tmp_path)  # relative paths, as users give them
    shared = ("--config", prepared / "run.yaml", "--data_dir", prepared, "--output-dir", "run")
    shared += ("--set", "optimizer.ema_decay=0.9", "--set", "optimizer.clip_variable_norm=1.0")
    end = call("train", *shared, "--num-steps", 6, "--set", "optimizer.schedule_type=step",
               "--set", "optimizer.boundaries=[3]", "--json")  # fmt: skip
    assert end.exit_code == 0, end.output
    tested = json.loads(end.output.splitlines()[-1])["test_loss"]
    assert call("export", *shared, "out").output == "out: the model of step 6\n"
    model, params, _ = load_model("out")
    test = read_data(prepared).splits["test"]
    loss = applied(model, {"params": params}, test, train=False, method="loss").loss
    assert float(loss) == pytest.approx(tested, rel=1e-5)
    ids, _ = recommend(model, params, [[1, 2]], k=3)
    assert ids.shape == (1, 3)
    end = call("evaluate", *shared, "--split", "test", "--report", "of_run", "--json")
    there = call("evaluate", "--checkpoint", "out", "--data-dir", prepared, "--split", "test",
                 "--report", "of_model", "--json")  # fmt: skip
    assert there.exit_code == 0, there.output
    of_run, of_model = (json.loads(one.output) for one in (end, there))
    assert of_model == {name: of_run[name] for name in of_model if name != "report"} | {
        "report": of_model["report"]
    }
    last = Checkpoints("run", read_only=True)
    assert not np.array_equal(
        last.restore_params()["item_embedding"]["kernel"], params["item_embedding"]["kernel"]
    )
    last.close()
    (tmp_path / "killed" / "params").mkdir(parents=True)
    for arguments, message in (
        (["out"], "out: is there already; give"),
        (["killed"], "killed: is there already, without config.json, as"),
        (["other", "--step", 5], "no checkpoint of step 5; steps there are: 6"),
        (["other", "--output-dir", "nowhere"], "nowhere: no checkpoint is there"),
    ):
        end = call("export", *shared, *arguments)
        assert (end.exit_code, message in end.output) == (1, True), end.output
    with pytest.raises(FileNotFoundError, match="run: checkpoints of a run; give what"):
        load_model("run")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model.model_dim=3"], "model_dim: unknown key; did you mean model_dims?"),
        (["data.batch_sise=3"], "batch_sise: unknown key; did you mean batch_size?"),
        (["traning.num_steps=3"], "traning: unknown key; did you mean training?"),
        (["data.dir=nowhere"], "nowhere: holds no data to train on; expected one of train.npz"),
        (["model.kind=efficientids"], "model_name: missing"),
        (
            ["model={'kind': 'efficientids', 'model_name': 'x', 'freeze_lm': True}"],
            "freeze_lm: true would keep random weights",
        ),
        (["model.kind=simpel"], "kind: found 'simpel', there are simple, efficientids, converted"),
        (["model={'kind': 'converted', 'path': 'nowhere'}"], "nowhere: no config.json"),
        (["model.num_heads=5"], "num_heads: found 5, expected a divisor of model_dims = 16"),
        (["optimizer.boundaries=[3]"], "boundaries"),
        (["optimizer.clip_norm=1", "optimizer.clip_variable_norm=1"], "excludes clip_norm"),
        (["optimizer.options={'epsilom': 1}"], "epsilom: unknown key; did you mean epsilon?"),
        (["training.num_step=3", "model.dropuot=1"], "num_step: unknown key; did you mean num_st"),
    ],
)
def test_bad_configurations_end_with_one_line(prepared, settings, message):
    flags = [part for setting in settings for part in ("--set", setting)]
    data = [] if "data.dir" in settings[0] else ["--data-dir", prepared]
    end = call("train", "--config", prepared / "run.yaml", *data, *flags)
    assert end.exit_code == 1
    assert message in end.output
    assert "Traceback" not in end.output


def test_sequences_become_batches_in_which_each_item_predicts_the_next(prepared):
    found = next_items(np.array([[3, 1, 2], [4, 5, -1], [6, -1, -1]]))
    assert found["ids"].tolist() == [[3, 1], [4, 5], [6, 0]]
    assert found["labels"].tolist() == [[1, 2], [5, 0], [0, 0]]
    assert found["weights"].tolist() == [[1, 1], [1, 0], [0, 0]]
    assert found["paddings"].tolist() == [[0, 0], [0, 0], [0, 1]]
    with pytest.raises(ValueError, match="-1 stands before an item"):
        next_items(np.array([[1, -1, 2]]))
    assert set(read_data(prepared).splits) == {"train", "eval", "test"}


def test_the_process_knows_its_own_optimum(process):
    assert np.allclose(process.probabilities.sum(axis=1), 1)
    sequences = process.sequences(4000, 6, seed=5)
    best = process.best_metrics(sequences, (1, 3))
    # The law itself, against the share that it expects: 20,000 draws, 4 standard errors.
    top = np.sort(process.probabilities, axis=1)[:, ::-1]
    present = sequences[:, :-1].reshape(-1)
    for cutoff in (1, 3):
        expected = top[present, :cutoff].sum(axis=1).mean()
        assert best[f"recall_at_{cutoff}"] == pytest.approx(expected, abs=4 * 0.5 / 20_000**0.5)
    entropy = -(process.probabilities * np.log(process.probabilities)).sum(axis=1)[present].mean()
    assert best["loss"] == pytest.approx(entropy, abs=0.05)


def test_training_on_cpus_keeps_freed_memory(monkeypatch):
    kept = []
    monkeypatch.setattr(host_memory, "keep_freed_memory", lambda: kept.append(True))
    assert CliRunner().invoke(main, ["train", "--config", "missing.yaml"]).exit_code == 1
    assert kept == [True]


def test_a_run_without_a_directory_has_one_and_names_it(training_alone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shared = ("--config", training_alone / "run.yaml", "--data-dir", training_alone)
    end = call("train", *shared, "--num-steps", 2)
    assert end.exit_code == 0, end.output
    assert "go to runs/train (--output-dir)" in end.output
    assert (tmp_path / "runs" / "train" / "2").is_dir()
    assert call("export", *shared, "out").exit_code == 0
    end = call("train", *shared, "--num-steps", 2, "--set", "checkpoint.dir=null",
               "--set", "training.progress=lines")  # fmt: skip
    assert "nothing of this run is saved" in end.output


def test_another_batch_size_is_refused_with_the_flag_that_takes_it(training_alone, tmp_path):
    data = training_alone
    shared = ("--config", data / "run.yaml", "--data-dir", data, "--output-dir", tmp_path)
    assert call("train", *shared, "--num-steps", 2).exit_code == 0
    end = call("train", *shared, "--num-steps", 4, "--batch-size", 4)
    assert end.exit_code == 1
    assert "batch_size: the checkpoint has 8, this run 4." in end.output
    assert end.output.count("\n") == 1
    flag = ("--allow-change", "batch_size")
    assert call("train", *shared, "--num-steps", 4, "--batch-size", 4, *flag).exit_code == 0


def test_a_longer_run_stays_on_its_schedule_unless_asked(training_alone, tmp_path):
    data = training_alone
    shared = ("--config", data / "run.yaml", "--data-dir", data, "--output-dir", tmp_path)
    shared += ("--set", "training.progress=lines", "--set", "optimizer.min_learning_rate_ratio=0.1")

    def rates(*arguments):
        end = call("train", *shared, "--lr", 0.01, *arguments)
        assert end.exit_code == 0, end.output
        lines = (tmp_path / "history.jsonl").read_text().splitlines()
        rows = map(json.loads, lines)
        return end.output, {r["step"]: r["learning_rate"] for r in rows if "learning_rate" in r}

    _, before = rates("--num-steps", 10)
    said, kept = rates("--num-steps", 14)
    assert "stays on the schedule of 10 steps" in said
    assert kept == before | {step: pytest.approx(0.001) for step in range(11, 15)}
    said, raised = rates("--num-steps", 20, "--allow-change", "schedule")
    assert raised[15] > 2 * kept[14]
    assert "schedule: learning_rate at step" in said
    said, after = rates("--num-steps", 22)  # and is that of 20 steps from then on
    assert after[22] == pytest.approx(0.001)
    end = call("train", *shared, "--lr", 0.01, "--num-steps", 30, "--set",
               "optimizer.total_steps=30")  # fmt: skip
    assert end.exit_code == 1
    assert "--allow-change schedule" in end.output
