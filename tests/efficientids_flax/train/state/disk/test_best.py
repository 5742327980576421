"""Which checkpoint stays as the best: by finite metrics alone, whichever way they are better."""

import jax.numpy as jnp
import optax
import pytest

from efficientids_flax.train.state.carried import TrainState
from efficientids_flax.train.state.disk.best import Best
from efficientids_flax.train.state.disk.checkpoint import Checkpoints

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("metric", "values", "wanted"),
    [
        ("eval_loss", [NAN, 3.0, 1.0, 2.0], 2),
        ("eval_loss", [3.0, NAN, -INF, 1.0], 3),
        ("eval_recall_at_5", [0.1, NAN, 0.3, INF, 0.3], 2),
        ("eval_loss", [NAN, None, INF], None),
        (None, [1.0, 2.0], None),
    ],
)
def test_the_best_is_finite(metric, values, wanted):
    metrics = {step: None if x is None else {metric: x} for step, x in enumerate(values)}
    assert Best(metric).step(metrics) == wanted


def saved(directory, metrics, **options):
    """A directory to which a run with these metrics, step by step, was written."""
    found = Checkpoints(directory, keep_last=1, asynchronous=False, **options)
    for step, values in metrics.items():
        rng = jnp.zeros(2, jnp.uint32)
        state = TrainState.create({"w": jnp.ones(2)}, optax.sgd(0.1), rng=rng, step=step)
        found.save(state, {}, values)
    found.close()


def test_steps_without_an_evaluation_are_never_the_best_by_another_metric(tmp_path):
    """A run by loss, gone on by recall: the best of those that were measured stays."""
    measured = {"eval_loss": 2.0, "eval_recall_at_1": 0.25}
    saved(tmp_path, {1: measured, 2: None}, keep_best="eval_loss")
    again = Checkpoints(tmp_path, keep_last=1, keep_best="eval_recall_at_1", asynchronous=False)
    assert (again.best_step(), again.best_metric()) == (1, 0.25)
    again.close()
    saved(tmp_path, {3: None, 4: {"eval_recall_at_1": NAN}}, keep_best="eval_recall_at_1")
    again = Checkpoints(tmp_path, keep_last=1, keep_best="eval_recall_at_1", read_only=True)
    assert (again.steps(), again.best_step()) == ([1, 4], 1)


def test_metrics_are_there_for_a_run_that_begins_to_keep_the_best(tmp_path):
    saved(tmp_path, {1: {"eval_loss": 2.0, "eval_mrr_at_5": 0.5}})
    again = Checkpoints(tmp_path, keep_best="eval_mrr_at_5", read_only=True)
    assert again.best_step() == 1
