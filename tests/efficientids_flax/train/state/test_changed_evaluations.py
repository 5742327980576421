"""Evaluations of a run that goes on: those that measured something else are not compared with."""

import numpy as np
import pytest

from efficientids_flax.train.batches import ShuffledBatches
from efficientids_flax.train.optimizer import create_optimizer
from efficientids_flax.train.state.fingerprint import RunMismatch
from tests.efficientids_flax.train.networks import BATCH, batches, begin, data, same, trainer
from tests.efficientids_flax.train.state.changes import CREATED, as_list, copied, smoothed


def test_another_evaluation_is_not_compared_with_the_one_before(tmp_path, capfd):
    """An easier one would win for ever, a harder one never."""
    how = {"keep_best": "eval_loss", "eval_every": 1, "save_every": 100, "tensorboard": False}
    made = trainer(tmp_path, **how)
    made.train(begin(made), batches(), batches(epochs=1), num_steps=2)
    before = made.best_step()
    other = ShuffledBatches(data(seed=5), BATCH)
    for source, change in ((batches(), {"num_eval_batches": 1}), (other, {})):
        again = trainer(tmp_path, **how, **change)
        with pytest.raises(RunMismatch, match=r"evaluation: .*--allow-change evaluation"):
            again.train(begin(again), batches(), source, num_steps=4)
    left_out = trainer(tmp_path, eval_every=0, tensorboard=False, progress="lines")
    left_out.train(begin(left_out), batches(), num_steps=3)
    assert f"before: that of step {before} stays" in capfd.readouterr().err
    again = trainer(tmp_path, allow_changes=("evaluation",), **how)
    state = again.train(begin(again), batches(), other, num_steps=5)
    assert again.best_step() in (4, 5)
    assert int(again.best(state).step) == again.best_step()


def test_evaluations_by_another_loss_are_not_compared_with_those_before(tmp_path, capfd):
    """A loss a hundred times larger would never be better than the one before."""
    how = {"keep_best": "eval_loss", "eval_every": 1, "tensorboard": False}
    made = trainer(tmp_path, **how)
    made.train(begin(made), batches(), as_list(), num_steps=2)
    how |= {"loss_fn": smoothed(-99.0), "progress": "lines"}
    again = trainer(tmp_path, allow_changes=("loss",), **how)
    again.train(begin(again), batches(), as_list(), num_steps=4)
    assert again.best_step() in (3, 4)
    assert "loss: evaluations before it are no longer compared with" in capfd.readouterr().err


def test_rows_of_an_evaluation_in_a_list_are_compared_too(tmp_path):
    made = trainer(tmp_path, keep_best="eval_loss", eval_every=1)
    made.train(begin(made), batches(), as_list(), num_steps=2)
    again = trainer(tmp_path, keep_best="eval_loss", eval_every=1)
    with pytest.raises(RunMismatch, match="evaluation: values was"):
        again.train(begin(again), batches(), [*as_list()[:-1], as_list(seed=1)[0]], num_steps=4)


def test_the_best_of_the_optimizer_before_is_given_back(finished, tmp_path):
    run = copied(finished, tmp_path)
    rows = [{name: value[:BATCH] for name, value in data().items()}]
    how = {"keep_best": "eval_loss", "eval_every": 1}
    made = trainer(run, optimizer=CREATED, **how)
    best = made.train(begin(made), batches(), rows, num_steps=4)
    assert made.best_step() == 4
    worse = create_optimizer(50.0, "sgd", momentum=0.0, ema_decay=0.9)
    how |= {"allow_changes": ("optimizer",), "evaluate_average": False}
    made = trainer(run, optimizer=worse, **how)
    state = made.train(begin(made), batches(), rows, num_steps=5)
    assert made.best_step() == 4
    assert same(made.best(state).params, best.params)
    averages = state.opt_state["ema"].ema["Dense_1"]["kernel"]
    np.testing.assert_array_equal(averages, best.params["Dense_1"]["kernel"])
