"""What a run makes of its evaluations: the best state, an early end, nothing lost."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from efficientids_flax.train import PipelineConfig, train, train_epochs
from efficientids_flax.train.run import evaluate, export
from tests.efficientids_flax.train.networks import (
    Network,
    batches,
    begin,
    data,
    loss_fn,
    same,
    trainer,
)

QUIET = {"progress": "none", "plot": False, "tensorboard": False}
WORSE = optax.adamw(-1e-2)  # goes uphill: the first evaluation is the best


def run(directory=None, **options):
    """An early stop after step 6, whose best was step 2: its trainer and last state."""
    made = trainer(
        directory, optimizer=WORSE, eval_every=2, keep_best="eval_loss", tensorboard=False,
        early_stopping_patience=2, network=Network(dropout=0.0), **options,
    )  # fmt: skip
    return made, made.train(begin(made), batches(), batches(), num_steps=50)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    return run(tmp_path_factory.mktemp("stopped"))


def test_the_best_state_is_the_same_in_memory_and_in_a_directory(stopped):
    made, state = stopped
    memory, last = run()
    assert int(state.step) == int(last.step) == 6
    assert made.best_step() == memory.best_step() == 2
    assert same(made.best(state), memory.best(last))
    found = memory.evaluate(memory.best(last), batches())["eval_loss"]
    assert found == min(row["eval_loss"] for row in memory.history if "eval_loss" in row)


def test_a_metric_called_loss_does_not_stand_in_the_place_of_the_loss():
    def named(*given):
        loss, _, state = loss_fn(*given)
        return loss, {"loss": 0 * loss - 1, "total_loss": 0 * loss - 2}, state

    network = Network(dropout=0.0, statistics=False)
    plain, other = trainer(network=network), trainer(network=network, loss_fn=named)
    state = begin(plain)
    found = [made.evaluate(state, batches()) for made in (plain, other)]
    assert found[0]["eval_loss"] == found[1]["eval_loss"] > 0
    assert found[1]["eval_total_loss"] == -2


def test_a_metric_that_some_batches_have_is_their_mean():
    def named(params, batch, *given):
        loss, metrics, state = loss_fn(params, batch, *given)
        rated = {"rating": jnp.mean(batch["rating"])} if "rating" in batch else {}
        return loss, metrics | rated, state

    made = trainer(network=Network(dropout=0.0, statistics=False), loss_fn=named)
    plain, rated = data(8), {**data(8), "rating": np.full(8, 3.0, np.float32)}
    alone, *found = (
        made.evaluate(begin(made), given)
        for given in ([rated], [plain, rated, plain], [rated, plain])
    )
    assert alone == found[0] == found[1]
    assert alone["eval_rating"] == 3


def test_the_best_state_in_memory_can_be_trained_on():
    made, last = run()
    best = made.best(last)
    after = made.train(best, batches(), batches(), num_steps=4)
    assert int(after.step) == 4
    assert int(made.best(after).step) == 2
    assert np.isfinite(made.evaluate(made.best(after), batches())["eval_loss"])


def test_the_same_call_after_an_early_stop_takes_no_step(stopped, capsys):
    made, state = stopped
    assert int(made.train(state, batches(), batches(), num_steps=60).step) == 6
    again, _ = run(made.directory, restore=True)
    assert again.history == made.history
    capsys.readouterr()
    anew, end = run(made.directory)
    anew.options = anew.options.from_dict({**anew.options.to_dict(), "progress": "lines"})
    assert int(anew.train(end, batches(), batches(), num_steps=60).step) == 6
    assert "stopped early after step 6 already: eval_loss" in capsys.readouterr().err
    memory, last = run()
    assert int(memory.train(last, batches(), batches(), num_steps=60).step) == 6


def test_more_patience_goes_on_after_an_early_stop(tmp_path):
    run(tmp_path)
    more = trainer(
        tmp_path, optimizer=WORSE, eval_every=2, keep_best="eval_loss", tensorboard=False,
        early_stopping_patience=3, network=Network(dropout=0.0),
    )  # fmt: skip
    assert int(more.train(begin(more), batches(), batches(), num_steps=50).step) == 8


def test_the_state_of_an_early_stop_is_stored_with_its_evaluation(stopped):
    made, _ = stopped
    with made._checkpoints() as checkpoints:
        assert checkpoints is not None
        assert checkpoints.metrics(6).keys() == {"eval_loss", "eval_accuracy"}


def config(directory, **training):
    return {
        "model": {"module": Network(dropout=0.0)},
        "optimizer": {"transform": WORSE},
        "data": {"train_iter_fn": batches(), "eval_iter_fn": batches(), "test_iter_fn": batches()},
        "training": {"num_steps": 6, "eval_every": 2, **QUIET, **training},
        "checkpoint": {"dir": directory, "keep_best": "eval_loss"},
        "loss_fn": loss_fn,
    }


@pytest.mark.parametrize("stored", [True, False])
def test_what_is_tested_returned_evaluated_and_exported_is_the_best(stored, tmp_path):
    given = config(str(tmp_path) if stored else None)
    result = train(given)
    assert (int(result.state.step), result.last_step) == (2, 6)
    best = min(row["eval_loss"] for row in result.history if "eval_loss" in row)
    assert result.test["test_loss"] == pytest.approx(best, rel=1e-6)
    if stored:
        found = evaluate(given, "test")
        assert found == {"step": 2, **result.test}
        assert evaluate(given, "test", 6)["test_loss"] > found["test_loss"]
    else:
        with pytest.raises(FileNotFoundError, match=r"checkpoint\.dir: None: no checkpoint"):
            export(given, tmp_path / "out")


def test_an_evaluation_that_is_never_finite_is_said(tmp_path):
    given = config(str(tmp_path))
    given["loss_fn"] = lambda *given: (*loss_fn(*given)[:1], {"auc": np.nan}, loss_fn(*given)[2])
    given["checkpoint"] |= {"keep_best": "eval_auc", "best_mode": "max"}
    given["data"].pop("test_iter_fn")
    with (
        pytest.warns(UserWarning, match="eval_auc are NaN, and never the best"),
        pytest.warns(UserWarning, match="keep_best: no evaluation has a finite eval_auc"),
    ):
        assert int(train(given).state.step) == 6


def test_epochs_without_a_directory_test_the_best():
    rng = np.random.default_rng(0)
    rows = {"x": data(16)["x"], "y": rng.integers(0, 3, 16).astype(np.int32)}
    held = {"x": data(16, 1)["x"], "y": rng.integers(0, 3, 16).astype(np.int32)}
    settings = PipelineConfig(batch_size=8, num_epochs=8, learning_rate=0.1)
    how = {"loss_fn": loss_fn, **QUIET}
    result = train_epochs(settings, Network(dropout=0.0), rows, held, held, **how)
    losses = [row["eval_loss"] for row in result.history if "eval_loss" in row]
    assert losses[-1] > min(losses)
    assert result.test["test_loss"] == pytest.approx(min(losses), rel=1e-6)
    assert (int(result.state.step), result.last_step) == (2 * (1 + int(np.argmin(losses))), 16)
    with pytest.raises(ValueError, match="val_data: has no rows"):
        train_epochs(settings, Network(), rows, {k: v[:0] for k, v in held.items()}, **how)


def test_the_steps_before_a_failing_evaluation_are_saved(tmp_path):
    source = [1, 1, 1, 0]  # looked at, then evaluated twice, then it fails

    def held():
        if not source or not source.pop(0):
            raise OSError("the data is gone")
        return batches()

    made = trainer(tmp_path, eval_every=3, save_every=100, tensorboard=False)
    with pytest.raises(OSError, match="the data is gone"):
        made.train(begin(made), batches(), held, num_steps=50)
    again = trainer(tmp_path, tensorboard=False)
    state = again.restore(begin(again))
    assert int(state.step) > 0 and int(state.step) % 3 == 0
    assert jax.tree.all(jax.tree.map(np.isfinite, jax.tree.map(np.all, state.params)))
