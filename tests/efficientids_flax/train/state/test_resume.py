"""A run that ends anywhere and goes on is, to the bit, the run that never ended."""

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from efficientids_flax.train.state import RunMismatch
from tests.efficientids_flax.train.networks import (
    DRAWN,
    Network,
    arrays,
    batches,
    begin,
    same,
    trainer,
)

STEPS = 23
SEED = 20261122


class PowerCut(BaseException):
    """Nobody catches it."""


@pytest.fixture(scope="module")
def whole():
    made = trainer()
    return made.train(begin(made), batches(), num_steps=STEPS)


def cut_at(step):
    """The batches without a state of their own, until the power is cut."""

    def source():
        for index, batch in enumerate(batches()):
            if index == step:
                raise PowerCut
            yield batch

    return source


def test_cut_at_random_points_again_and_again(tmp_path, whole):
    """Five runs of one to four cuts each; replays the data, since a generator has no state."""
    rng = np.random.default_rng(SEED)
    made = trainer(None, save_every=3)  # one trainer: each compiles its step once
    for number in range(5):
        made.directory = tmp_path / str(number)
        for cut in sorted(rng.integers(0, STEPS, rng.integers(1, 5))):
            with pytest.raises(PowerCut):
                made.train(begin(made), cut_at(int(cut)), num_steps=STEPS)
        made._cursor = None
        state = made.train(begin(made), cut_at(STEPS + 1), num_steps=STEPS)
        assert same(state, whole), f"run {number}"
        assert [row["step"] for row in made.history] == list(range(1, STEPS + 1))


def test_killed_processes_go_on(tmp_path, whole):
    """SIGKILL, so that nothing is tidied up and a checkpoint may be half written."""
    rng = np.random.default_rng(SEED + 1)
    script = Path(__file__).with_name("killed_run.py")
    kills = sorted(rng.choice(np.arange(4, STEPS), 3, replace=False))
    command = map(str, [sys.executable, script, tmp_path, STEPS, *kills, -1])
    end = subprocess.run([*command], capture_output=True, text=True, check=False)
    codes = [*map(int, end.stdout.split())]
    assert codes == [-signal.SIGKILL] * len(kills) + [0], end.stderr[-3000:]
    with np.load(tmp_path / "end.npz") as stored:
        found = [stored[str(index)] for index in range(len(stored.files))]
    want = arrays(whole)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(found, want, strict=True))


def test_the_best_value_and_patience_go_on(tmp_path):
    options = {"eval_every": 2, "keep_best": "eval_loss", "early_stopping_patience": 50}
    made = trainer(tmp_path, **options)
    made.train(begin(made), batches(), batches(epochs=1), num_steps=6)
    losses = [row["eval_loss"] for row in made.history if "eval_loss" in row]
    again = trainer(tmp_path, **options)
    again.train(begin(again), batches(), batches(epochs=1), num_steps=8)
    losses += [row["eval_loss"] for row in again.history if "eval_loss" in row][len(losses) :]
    assert len(losses) == 4
    assert again.best_step() == 2 * (1 + int(np.argmin(losses)))


def test_what_is_said_follows_the_evaluations_before(tmp_path, capsys):
    def said(steps, **how):
        made = trainer(
            tmp_path, eval_every=1, optimizer=optax.sgd(-0.1), progress="lines", **how
        )  # it gets worse
        made.train(begin(made), batches(), batches(epochs=1), num_steps=steps)
        return capsys.readouterr().err

    stops = {"keep_best": "eval_loss", "early_stopping_patience": 1}
    said(8, **stops)
    assert "goes on from" not in (text := said(8, **stops))
    assert "stopped early after step 2 already" in text
    text = said(3, keep_best="eval_accuracy")
    assert "goes on from step 2" in text
    assert "keep_best: was eval_loss, is eval_accuracy" in text


def test_other_data_in_a_later_call_is_read_from_its_start_and_said(capsys):
    made, one = trainer(progress="lines"), batches()
    state = made.train(made.train(begin(made), one, num_steps=2), one, num_steps=4)
    assert "another object" not in capsys.readouterr().err
    made.train(state, batches(), num_steps=5)
    assert "data: another object than up to step 4" in capsys.readouterr().err
    assert made._cursor.consumed == 1


def test_gradient_parts_and_frozen_parameters_go_on_too(tmp_path):
    options = {"gradient_accumulation_steps": 2, "frozen_params": ["Dense_0"]}
    one, other = trainer(**options), trainer(tmp_path, **options)
    want = one.train(begin(one), batches(), num_steps=6)
    other.train(begin(other), batches(), num_steps=3)
    again = trainer(tmp_path, **options)
    assert same(again.train(begin(again), batches(), num_steps=6), want)


def test_other_frozen_parameters_than_those_of_the_checkpoint_are_named(tmp_path, capsys):
    """Those that were trained on stay; a language model in another folder would not be noticed."""
    network = Network(kernel_init=DRAWN)
    options = {"frozen_params": ["Dense_0"], "progress": "lines", "network": network}
    made = trainer(tmp_path, **options)
    state = made.train(begin(made), batches(), num_steps=3)
    again = trainer(tmp_path, **options)
    again.restore(begin(again))
    assert "frozen" not in capsys.readouterr().err
    other = trainer(tmp_path, **options)
    restored = other.restore(begin(other, seed=1))
    assert same(restored.frozen, state.frozen)
    told = "frozen: 1 of the 2 frozen parameters that were given are not those of the checkpoint"
    assert f"{tmp_path}/3: {told}, which stay: Dense_0/kernel; another" in capsys.readouterr().err


def test_data_that_is_too_short_now_says_so(tmp_path):
    made = trainer(tmp_path)
    made.train(begin(made), batches(), num_steps=5)
    again = trainer(tmp_path)
    rows = iter([next(iter(batches()))] * 3)
    with pytest.raises(Exception, match="the data ended after 3 batches"):
        again.train(begin(again), rows, num_steps=10)


def test_checkpoint_of_a_step_can_be_asked_for(tmp_path):
    made = trainer(tmp_path, save_every=2, max_checkpoints=None)
    end = made.train(begin(made), batches(), num_steps=4)
    again = trainer()
    halfway = again.train(begin(again), batches(), num_steps=2)
    assert same(made.restore(begin(made), 2), halfway)
    assert same(made.restore(begin(made)), end)
    with pytest.raises(FileNotFoundError, match="no checkpoint of step 3; steps there are: 2, 4"):
        made.restore(begin(made), 3)


def test_parameters_can_be_read_without_the_model(tmp_path):
    from efficientids_flax.train.state.disk.checkpoint import Checkpoints

    made = trainer(tmp_path)
    state = made.train(begin(made), batches(), num_steps=2)
    checkpoints = Checkpoints(tmp_path, read_only=True)
    found = checkpoints.restore_params()
    checkpoints.close()
    assert jax.tree.structure(found) == jax.tree.structure(state.params)
    assert same(found, state.params)


class Counted:
    """An iterator that keeps its place in another way than `ShuffledBatches` does."""

    def __init__(self):
        self.rows, self.place = list(batches(epochs=1)), 0

    def __iter__(self):
        return self

    def __next__(self):
        self.place += 1
        return self.rows[(self.place - 1) % len(self.rows)]

    def get_state(self):
        return {"place": self.place}

    def set_state(self, state):
        self.place = state["place"]


@pytest.mark.parametrize("first", ["shuffled", "counted"])
def test_the_place_of_another_kind_of_iterator_is_refused(tmp_path, first):
    sources = {"shuffled": batches, "counted": Counted}
    made = trainer(tmp_path)
    made.train(begin(made), sources.pop(first), num_steps=3)
    (other,) = sources.values()
    made.let_go_of_data()
    with pytest.raises(RunMismatch, match="rows: the place in the data is of another kind"):
        made.train(begin(made), other, num_steps=5)
    made.options = replace(made.options, allow_changes=("rows",))
    assert int(made.train(begin(made), other, num_steps=5).step) == 5


def test_a_typed_key_in_the_optimizer_goes_on(tmp_path):
    options = {"optimizer": optax.noisy_sgd(0.1, key=jax.random.key(3)), "save_every": 2}
    whole = trainer(**options)
    want = whole.train(begin(whole), batches(), num_steps=4)
    for steps in (2, 4):
        made = trainer(tmp_path, **options)
        found = made.train(begin(made), batches(), num_steps=steps)
    assert same(found.params, want.params)
    keys = [jax.random.key_data(state.opt_state[0].rng_key) for state in (found, want)]
    assert same(*keys)
