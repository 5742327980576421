"""Training in one call, by a configuration."""

import json
import re

import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from efficientids_flax.data import read_data
from efficientids_flax.train.options import TrainingOptions
from efficientids_flax.train.run.calls import evaluate, train
from efficientids_flax.train.run.config import override, read_config, run_config
from efficientids_flax.train.run.pipeline import PipelineConfig, train_epochs
from tests.efficientids_flax.train.networks import (
    Network,
    batches,
    begin,
    data,
    loss_fn,
    same,
    trainer,
)

QUIET = {"progress": "none", "plot": False}


def config(directory=None, **training):
    return ConfigDict(
        {
            "model": {
                "module": Network(),
                "init_args": [data()["x"][:1]],
                "init_kwargs": {"training": True},
            },
            "optimizer": {"transform": optax.adamw(1e-2)},
            "data": {"train_iter_fn": batches},
            "training": {"num_steps": 6, **QUIET, **training},
            "checkpoint": {"dir": directory, "max_to_keep": 3, "restore": True},
            "loss_fn": loss_fn,
        }
    )


def test_returns_state_and_history_and_goes_on(tmp_path):
    result = train(config(str(tmp_path)))
    assert int(result.state.step) == 6
    assert [row["step"] for row in result.history] == list(range(1, 7))
    assert all(np.isfinite(row["loss"]) for row in result.history)
    more = train(config(str(tmp_path), num_steps=9))
    assert [row["step"] for row in more.history] == list(range(1, 10))
    assert more.history[:6] == result.history
    plain = train(config(num_steps=9).to_dict())  # any mapping, and no directory
    assert same(plain.state, more.state)


def test_is_the_loop_of_the_trainer():
    result = train(config())
    again = trainer(init_args=[data()["x"][:1]], init_kwargs={"training": True})
    assert same(again.train(begin(again), batches(), num_steps=6), result.state)


def test_tests_at_the_end_the_best_checkpoint(tmp_path):
    given = config(str(tmp_path), eval_every=2)
    given.data.eval_iter_fn = lambda: batches(epochs=1)
    given.data.test_iter_fn = lambda: batches(epochs=1)
    given.checkpoint.keep_best = "eval_loss"
    result = train(given)
    best = min(row["eval_loss"] for row in result.history if "eval_loss" in row)
    assert result.test["test_loss"] == pytest.approx(best, rel=1e-6)
    assert evaluate(given, "test")["test_loss"] == pytest.approx(best, rel=1e-6)
    last = evaluate(given, "test", 6)
    assert last["test_loss"] == pytest.approx(result.history[-1]["eval_loss"], rel=1e-6)


def test_the_final_test_is_over_all_whatever_evaluations_read():
    read = {"eval": 0, "test": 0}

    def counted(name):
        def source():
            for batch in batches(epochs=1).once():
                read[name] += 1
                yield batch

        return source

    given = config(num_steps=1, eval_every=1, num_eval_batches=1)
    given.data.eval_iter_fn, given.data.test_iter_fn = map(counted, read)
    train(given)
    whole = len([*batches(epochs=1).once()])
    assert read["test"] == whole > 2 >= read["eval"]


def test_everything_wrong_is_listed_with_the_nearest():
    wrong = config(num_step=3, log_every=0)
    wrong.checkpoint.max_keep = 1
    wrong.optmizer = {}
    del wrong.data.train_iter_fn
    with pytest.raises(ValueError, match="config: 5 problems") as error:
        run_config(wrong)
    for line in (
        "optmizer: unknown key; did you mean optimizer?",
        "training.num_step: unknown key; did you mean num_steps?",
        "checkpoint.max_keep: unknown key; did you mean max_to_keep?",
        "data.train_iter_fn: missing",
        "log_every: expected at least 1, found 0",
    ):
        assert line in str(error.value)


def test_wrong_kinds_are_named():
    with pytest.raises(ValueError, match="expected a mapping or a ConfigDict, found 3"):
        run_config(3)
    with pytest.raises(ValueError, match="model: expected a section, found 'mlp'"):
        run_config({"model": "mlp"})


def test_a_pretrained_strategy_wants_weights():
    given = config().to_dict()
    given["optimizer"] = {"strategy": "frozen_pretrained"}
    with pytest.raises(
        ValueError, match=r"model\.params: missing; 'frozen_pretrained' begins with"
    ):
        train(given)


def test_an_iterator_cannot_be_begun_again():
    given = config().to_dict()
    given["data"] = {"train_iter_fn": iter(batches())}
    with pytest.raises(ValueError, match="found an iterator; give a function that returns it"):
        train(given)


@pytest.mark.parametrize("suffix", [".yaml", ".json", ".py"])
def test_files_say_the_same(tmp_path, suffix):
    content = {
        ".yaml": "training: {num_steps: 5}\noptimizer:\n  learning_rate: 0.1\n",
        ".json": '{"training": {"num_steps": 5}, "optimizer": {"learning_rate": 0.1}}',
        ".py": "def get_config():\n    return {'training': {'num_steps': 5}, "
        "'optimizer': {'learning_rate': 0.1}}\n",
    }
    path = tmp_path / f"run{suffix}"
    path.write_text(content[suffix])
    settings = {"training.seed": 3, "optimizer.schedule-type": "linear"}
    settings |= {"checkpoint.dir": "runs/1", "checkpoint.restore": False}
    found = override(read_config(path), settings)
    assert found == {
        "training": {"num_steps": 5, "seed": 3},
        "optimizer": {"learning_rate": 0.1, "schedule_type": "linear"},
        "checkpoint": {"dir": "runs/1", "restore": False},
    }


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("import nothing_there", "ModuleNotFoundError: No module named 'nothing_there'"),
        ("def get_config(:", "SyntaxError: "),
        ("def get_config(): return {}['a']", "KeyError: 'a'"),
        ("", "has no function get_config()"),
    ],
)
def test_a_file_of_python_that_fails_is_named(tmp_path, content, told):
    path = tmp_path / "run.py"
    path.write_text(content)
    with pytest.raises(ValueError, match=re.escape(f"{path}: {told}")):
        read_config(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"text"])
def test_data_that_cannot_be_read_is_named(tmp_path, content):
    (tmp_path / "train.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"train\.npz: cannot be read as an \.npz of arrays"):
        read_data(tmp_path)


def test_a_setting_below_a_value_is_named():
    with pytest.raises(ValueError, match=re.escape("training.seed.x: 'seed' is no section")):
        override({"training": {"seed": 3}}, {"training.seed.x": 1})


def split(seed, rows):
    return data(rows, seed)


def test_epochs_with_validation_each_and_a_test_at_the_end(tmp_path):
    result = train_epochs(
        PipelineConfig(
            batch_size=8, num_epochs=3, learning_rate=1e-2, checkpoint_dir=str(tmp_path),
            save_frequency=2, scheduler_type="cosine", warmup_steps=2, total_steps=18,
            beta1=0.9, beta2=0.999, weight_decay=1e-4,
        ),
        Network(), split(0, 48), split(1, 20), split(2, 12), loss_fn=loss_fn, **QUIET,
    )  # fmt: skip
    assert int(result.state.step) == 18
    validated = [row["step"] for row in result.history if "eval_loss" in row]
    assert validated == [6, 12, 18]
    assert {"test_loss", "test_accuracy"} <= result.test.keys()
    assert {"12", "18"} <= {path.name for path in tmp_path.iterdir()}


def test_epochs_are_counted_by_their_rows_where_batches_have_been_of_another_size(tmp_path):
    """8 rows of 48 are read in a step, 4 epochs; then 16, in 3 steps an epoch."""

    def ran(size, epochs):
        config = PipelineConfig(batch_size=size, num_epochs=epochs, checkpoint_dir=str(tmp_path))
        how = {"loss_fn": loss_fn, "allow_changes": ("batch_size",), **QUIET}
        return train_epochs(config, Network(), split(0, 48), **how).last_step

    assert ran(8, 4) == 24
    assert ran(16, 5) == 24 + 3
    assert ran(16, 6) == 24 + 6


def test_epochs_stop_early():
    result = train_epochs(
        PipelineConfig(batch_size=8, num_epochs=50, optimizer_type="sgd", momentum=0.9,
                       learning_rate=1.0, early_stopping_patience=2, keep_best=False),
        Network(), split(0, 16), split(1, 8), loss_fn=loss_fn, **QUIET,
    )  # fmt: skip
    assert int(result.state.step) < 100


def test_numbers_of_numpy_and_lists_are_taken_as_those_of_python():
    made = run_config(
        {
            "model": {"module": Network()},
            "data": {"train_iter_fn": batches()},
            "training": {"num_steps": np.int64(4), "seed": np.uint32(3)},
        }
    )
    assert (made.num_steps, made.seed) == (4, 3)
    options = TrainingOptions(save_every=np.int64(2), allow_changes=["rows"])  # pyright: ignore[reportArgumentType]
    assert json.dumps(options.to_dict())
    assert options == TrainingOptions(save_every=2, allow_changes=("rows",))
