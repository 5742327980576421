"""What befalls a run from outside, and what it says of it."""

import shutil

import jax.numpy as jnp
import optax
import pytest

from efficientids_flax.train.history import read_history
from efficientids_flax.train.step.nonfinite import NonFiniteError
from tests.efficientids_flax.train.networks import batches, begin, loss_fn, same, trainer


@pytest.fixture(scope="module")
def plain():
    made = trainer()
    return made.train(begin(made), batches(), num_steps=8)


def test_a_directory_that_was_removed_is_written_anew(tmp_path, capsys, plain):
    place = tmp_path / "run"

    def removing():
        for index, batch in enumerate(batches()):
            if index == 5:
                shutil.rmtree(place)
            yield batch

    made = trainer(place, save_every=0, log_every=2, progress="lines")
    assert same(made.train(begin(made), removing, num_steps=8), plain)
    assert f"{place}: was removed, or moved, while the run went on" in capsys.readouterr().err
    assert (place / "run.lock").exists()  # taken anew
    assert [row["step"] for row in read_history(place)] == list(range(1, 9))
    made.let_go_of_data()
    assert same(made.restore(begin(made)), plain)


def test_a_history_that_was_removed_is_written_anew(tmp_path, capsys):
    def removing():
        for index, batch in enumerate(batches()):
            if index == 5:
                (tmp_path / "history.jsonl").unlink()
            yield batch

    made = trainer(tmp_path, save_every=4, progress="lines")
    made.train(begin(made), removing, num_steps=8)
    said = capsys.readouterr().err
    assert f"{tmp_path / 'history.jsonl'}: was removed while the run went on" in said
    assert "checkpoints and logs so far are gone" not in said
    assert [row["step"] for row in read_history(tmp_path)] == list(range(1, 9))


def test_a_history_that_was_removed_between_two_runs_is_missed(tmp_path, capsys):
    made = trainer(tmp_path)
    made.train(begin(made), batches(), num_steps=2)
    (tmp_path / "history.jsonl").unlink()
    for steps, rows in ((2, 0), (3, 1)):  # nothing to train, then one step
        made = trainer(tmp_path, progress="lines")
        made.train(begin(made), batches(), num_steps=steps)
        said = capsys.readouterr().err
        assert "history.jsonl is gone: the history begins after step 2" in said
        assert len(made.history) == rows


def test_a_best_checkpoint_that_was_removed_is_missed(tmp_path, capsys):
    how = {"eval_every": 1, "save_every": 1, "keep_best": "eval_loss"}
    how |= {"optimizer": optax.sgd(-0.1)}  # it gets worse
    made = trainer(tmp_path, **how)
    made.train(begin(made), batches(), batches(epochs=1), num_steps=4)
    best = made.best_step()
    assert best is not None
    value = made.history[best - 1]["eval_loss"]
    shutil.rmtree(tmp_path / str(best))
    made = trainer(tmp_path, **how, progress="lines")
    made.train(begin(made), batches(), batches(epochs=1), num_steps=5)
    said = capsys.readouterr().err
    assert f"the best checkpoint, of eval_loss {value:.6g}, is not there any more; the best" in said
    assert made.best_step() not in (None, best)


def test_batches_without_any_label_are_told(capsys):
    def loss(params, batch, model_state, rng, apply_fn):
        found, metrics, state = loss_fn(params, batch, model_state, rng, apply_fn)
        return found * 0, {**metrics, "total_weight": 0.0}, state

    made = trainer(loss_fn=loss, log_every=2, progress="lines")
    made.train(begin(made), batches(), num_steps=6)
    assert (
        capsys.readouterr().err.count("up to step 2: no label of these batches has a weight") == 1
    )


def test_a_schedule_that_gives_no_number_ends_the_run_before_its_step(tmp_path):
    """Its update would make all parameters NaN, which the loss shows after the next batch."""

    def rate(count):
        return jnp.where(count < 3, 1e-2, jnp.nan)

    made = trainer(tmp_path, optimizer=optax.adamw(rate), learning_rate=rate)
    with pytest.raises(NonFiniteError, match="step 4: learning_rate nan: the schedule"):
        made.train(begin(made), batches(), num_steps=4)
    wanted = trainer()
    assert same(made.restore(begin(made)).params,
                wanted.train(begin(wanted), batches(), num_steps=3).params)  # fmt: skip


def test_what_a_run_is_allowed_is_said_once(tmp_path, capsys):
    """Not when its best checkpoint is restored as well."""
    how = {"eval_every": 1, "save_every": 1, "keep_best": "eval_loss", "progress": "lines"}
    how |= {"optimizer": optax.sgd(-0.1)}  # it gets worse: the best is one of the first
    made = trainer(tmp_path, **how)
    made.train(begin(made), batches(), batches(epochs=1), num_steps=2)
    made = trainer(tmp_path, **how, frozen_params=["Dense_0"], allow_changes=("frozen",))
    state = made.train(begin(made), batches(), batches(epochs=1), num_steps=3)
    assert int(made.best(state).step) < 3
    said = capsys.readouterr().err
    assert said.count("frozen: frozen now: Dense_0") == 1
    assert "not those of the checkpoint" not in said  # as they have been trained
