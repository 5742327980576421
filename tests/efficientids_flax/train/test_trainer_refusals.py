"""What the Trainer refuses before anything is compiled."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from networks import batches, begin, trainer

from efficientids_flax.train.train_state import TrainState


def test_wrong_options_are_told_with_the_nearest(monkeypatch):
    with pytest.raises(ValueError, match=r"log_evry: unknown key; did you mean log_every\?"):
        trainer(log_evry=5)
    with pytest.raises(ValueError, match=r"save_every: expected at least 0, found -1"):
        trainer(save_every=-1)
    with pytest.raises(ValueError, match="loss_fn: missing; Network has no loss of its own"):
        trainer(loss_fn=None)
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    with pytest.raises(ImportError, match="wandb is not installed: pip install wandb"):
        trainer(wandb_project="mine")


def test_a_metric_that_no_evaluation_has_is_named_before_anything_is_compiled():
    made = trainer(keep_best="eval_accurary")
    with pytest.raises(ValueError, match="no 'eval_accurary'; it has eval_accuracy, eval_loss"):
        made.train(begin(made), batches(), batches(epochs=1), num_steps=2)
    assert made._step is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: {"x": b["x"]}, "y: missing"),
        (lambda b: {"x": b["x"], "yy": b["y"]}, r"yy: not in the sample batch; did you mean y\?"),
        (lambda b: b | {"x": b["x"][:, :5]}, r"x: found \[8, 5\], the sample batch has \[8, 6\]"),
        (lambda b: b | {"y": b["y"].astype(np.float32)}, "y: found float32, the sample batch has"),
        (lambda b: b | {"x": b["x"][:4]}, "as many rows in each field, found"),
        (lambda b: b | {"x": b["x"].astype(str)}, "x: found <U32, expected numbers"),
        (lambda b: (b["x"], b["y"]), "expected a dict of arrays, found a tuple"),
    ],
)
def test_batches_unlike_the_sample_are_named_before_anything_is_compiled(change, message):
    made = trainer()
    state = begin(made)
    with pytest.raises(ValueError, match=message):
        made.train(state, [change(next(iter(batches())))], num_steps=2)
    assert made._step is None


def test_rows_that_do_not_divide_are_named():
    made = trainer(gradient_accumulation_steps=3)
    with pytest.raises(ValueError, match="x: 8 rows do not divide by gradient_accumulation_steps"):
        begin(made)


def test_all_parameters_frozen_is_refused():
    with pytest.raises(ValueError, match="nothing is left to train"):
        TrainState.create({"a": jnp.ones(2)}, optax.sgd(1), rng=jax.random.key(0), frozen=["a"])
