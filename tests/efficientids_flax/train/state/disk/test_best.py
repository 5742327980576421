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


def stepped(step):
    rng = jnp.zeros(2, jnp.uint32)
    return TrainState.create({"w": jnp.ones(2)}, optax.sgd(0.1), rng=rng, step=step)


def test_evaluations_before_a_change_of_how_they_are_made_do_not_count(tmp_path):
    how = {"keep_best": "eval_loss"}
    saved(tmp_path, {1: {"eval_loss": 1.0}, 2: {"eval_loss": 2.0}}, **how)
    changed = Checkpoints(tmp_path, keep_last=1, asynchronous=False, **how)
    assert changed.best_step() == 1
    changed.measure_anew(2)
    assert changed.best_step() is None
    for step, loss in ((3, 4.0), (4, 5.0)):
        changed.save(stepped(step), {}, {"eval_loss": loss})
    changed.close()
    again = Checkpoints(tmp_path, read_only=True, **how)
    assert (again.steps(), again.best_step()) == ([3, 4], 3)


def test_the_best_stays_where_a_later_run_does_not_ask_for_it(tmp_path):
    saved(tmp_path, {1: {"eval_loss": 1.0}, 2: {"eval_loss": 2.0}}, keep_best="eval_loss")
    for steps in ((3, 4), (5, 6)):
        again = Checkpoints(tmp_path, keep_last=1, asynchronous=False)
        assert again.best_step() is None
        assert again.keep_on(again.run_of()) == "eval_loss"
        for step in steps:
            again.save(stepped(step), {}, None)
        assert again.steps() == [1, steps[-1]]
        again.close()


def test_metrics_are_there_for_a_run_that_begins_to_keep_the_best(tmp_path):
    saved(tmp_path, {1: {"eval_loss": 2.0, "eval_mrr_at_5": 0.5}})
    again = Checkpoints(tmp_path, keep_best="eval_mrr_at_5", read_only=True)
    assert again.best_step() == 1
