"""The Trainer as a whole: it learns, evaluates, goes on, refuses what is wrong."""

import json
import os
import signal
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from efficientids_flax.sharding import make_mesh
from efficientids_flax.train.batches import ShuffledBatches
from efficientids_flax.train.history import read_history
from efficientids_flax.train.loop import Preempted
from efficientids_flax.train.step.nonfinite import NonFiniteError
from tests.efficientids_flax.train.networks import (
    BATCH,
    Network,
    arrays,
    batches,
    begin,
    data,
    loss_fn,
    same,
    trainer,
)

STEPS = 12


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of 12 steps: its directory, trainer and last state."""
    directory = tmp_path_factory.mktemp("finished")
    made = trainer(directory, eval_every=4, keep_best="eval_loss")
    state = made.train(begin(made), batches(), batches(epochs=1), num_steps=STEPS)
    return directory, made, state


def test_takes_the_steps_of_a_plain_loop():
    """Without dropout and statistics: optax by hand, on the same batches."""
    network, optimizer = Network(dropout=0.0, statistics=False), optax.adamw(1e-2)

    def loss(params, batch, model_state, rng, apply_fn):
        logits = apply_fn({"params": params}, batch["x"])
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"])
        return entropy.mean(), {}, model_state

    made = trainer(network=network, optimizer=optimizer, loss_fn=loss)
    state = begin(made)
    params = jax.tree.map(jnp.copy, state.params)
    chain = optimizer.init(params)
    state = made.train(state, batches(), num_steps=5)
    source = iter(batches())

    @jax.jit
    def step(params, chain, batch):
        value, found = jax.value_and_grad(
            lambda params: loss(params, batch, {}, None, network.apply)[0]
        )(params)
        updates, chain = optimizer.update(found, chain, params)
        return optax.apply_updates(params, updates), chain, value

    losses = []
    for _ in range(5):
        params, chain, value = step(params, chain, next(source))
        losses.append(float(value))
    # One program is compiled with the norm of the gradients, one without: a rounding apart.
    np.testing.assert_allclose([row["loss"] for row in made.history], losses, rtol=1e-5)
    for ours, plain in zip(arrays(state.params), arrays(params), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("meshed", [False, True])
def test_the_loss_is_traced_once_for_the_first_state_and_once_for_the_step(meshed):
    calls = []

    def counted(*given):
        calls.append(len(calls))
        return loss_fn(*given)

    mesh = make_mesh() if meshed else None
    made = trainer(loss_fn=counted, mesh=mesh)
    state = begin(made)
    assert len(calls) == 1
    made.train(state, batches(), num_steps=2)
    assert len(calls) == 2


def test_history_has_every_step(finished):
    directory, made, _ = finished
    assert [row["step"] for row in made.history] == list(range(1, STEPS + 1))
    assert all({"loss", "accuracy", "grad_norm"} <= row.keys() for row in made.history)
    assert [row["step"] for row in made.history if "eval_loss" in row] == [4, 8, 12]
    assert read_history(directory) == made.history


def test_learns():
    made = trainer(log_every=50)
    state = made.train(begin(made), batches(), num_steps=150)
    assert made.evaluate(state, batches(epochs=1))["eval_accuracy"] > 0.9


@jax.jit
def entropies(variables, rows):
    logits = Network().apply(variables, rows["x"], training=False)
    return optax.softmax_cross_entropy_with_integer_labels(logits, rows["y"])


def test_evaluation_is_without_dropout_and_by_the_running_statistics(finished):
    _, made, state = finished
    found = made.evaluate(state, batches(epochs=1, shuffle=False))
    entropy = entropies(state.variables, data())
    assert found["eval_loss"] == pytest.approx(float(entropy.mean()), rel=1e-5)
    assert found == made.evaluate(state, batches(epochs=1, shuffle=False))
    one = made.evaluate(state, batches(epochs=1, shuffle=False), num_eval_batches=1)
    assert one["eval_loss"] == pytest.approx(float(entropy[:BATCH].mean()), rel=1e-5)


def test_rows_of_a_short_last_batch_count_as_the_others(finished):
    _, made, state = finished
    short = ShuffledBatches(data(20), BATCH, shuffle=False, drop_remainder=False, epochs=1)
    entropy = entropies(state.variables, data(20))
    found = made.evaluate(state, short)["eval_loss"]
    assert found == pytest.approx(float(entropy.mean()), rel=1e-5)


def test_goes_on_in_memory_as_in_one_call():
    first = trainer()
    source = batches()
    halfway = first.train(begin(first), source, num_steps=5)
    end = first.train(halfway, source, num_steps=STEPS)
    second = trainer()
    assert same(end, second.train(begin(second), batches(), num_steps=STEPS))


def test_restores_by_default_and_goes_on_with_more_steps(finished):
    directory, _, state = finished
    again = trainer(directory, eval_every=0)
    assert same(again.train(begin(again, seed=7), batches(), num_steps=STEPS), state)
    assert len(again.history) == STEPS


def test_keeps_the_best_and_the_last(finished):
    directory, made, _ = finished
    by_loss = {row["step"]: row["eval_loss"] for row in made.history if "eval_loss" in row}
    assert made.best_step() == min(by_loss, key=by_loss.__getitem__)
    assert {str(STEPS), str(made.best_step())} <= {path.name for path in directory.iterdir()}


def test_stops_early_when_nothing_gets_better(tmp_path, capsys):
    made = trainer(
        tmp_path, eval_every=2, early_stopping_patience=2, optimizer=optax.sgd(0.0),
        network=Network(statistics=False),
        loss_fn=lambda params, batch, state, rng, apply_fn: (
            jnp.mean(apply_fn({"params": params}, batch["x"]) ** 2), {}, state,
        ), progress="lines",
    )  # fmt: skip
    state = made.train(begin(made), batches(), batches(epochs=1), num_steps=100)
    assert int(state.step) == 6
    assert "stopped early after step 6: eval_loss" in capsys.readouterr().err


@pytest.mark.parametrize("optimizer", [optax.adamw(0.1, weight_decay=0.5), optax.sgd(0.1, 0.9)])
def test_frozen_parameters_stay_to_the_bit(optimizer):
    clipped = optax.chain(optax.clip_by_global_norm(1e-3), optimizer)
    made = trainer(optimizer=clipped, frozen_params=["Dense_0"], frozen_dtype="bfloat16")
    state = begin(made)
    before, trained = arrays(state.frozen), arrays(state.trained)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in before)
    kept = state.frozen
    state = made.train(state, batches(), num_steps=5)
    assert [leaf.tobytes() for leaf in arrays(state.frozen)] == [b.tobytes() for b in before]
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(kept))  # they are not donated
    assert all(
        not np.array_equal(new, old)
        for new, old in zip(arrays(state.trained), trained, strict=True)
        if old.any()
    )


def test_stops_at_nan_and_names_what_went_bad_first(tmp_path):
    class Logarithm(nn.Module):
        @nn.compact
        def __call__(self, x):
            return jnp.log(x)

    class Bad(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(1)(Logarithm(name="logarithm")(nn.Dense(2)(x)))

    def loss(params, batch, model_state, rng, apply_fn):
        return jnp.mean(apply_fn({"params": params}, batch["x"])), {}, model_state

    made = trainer(tmp_path, network=Bad(), loss_fn=loss, save_every=1)
    with pytest.raises(NonFiniteError, match=r"step 1: loss nan.*activation logarithm is not"):
        made.train(begin(made), batches(), num_steps=5)
    assert not [path for path in tmp_path.iterdir() if path.name.isdigit()]


def test_a_norm_beyond_float32_is_told_as_that():
    def loss(params, batch, model_state, rng, apply_fn):
        logits = apply_fn({"params": params}, batch["x"])
        return jnp.float32(1e20) * jnp.sum(logits), {}, model_state

    made = trainer(network=Network(statistics=False), loss_fn=loss)
    with pytest.raises(NonFiniteError, match=r"norm inf: every .* Dense_1/bias reaches 8e\+20"):
        made.train(begin(made), batches(), num_steps=1)


@pytest.mark.parametrize("told", [False, True], ids=["alone", "told to stop after it"])
def test_stops_at_a_bad_batch_and_saves_what_was_before_it(tmp_path, told):
    rows = [batch for batch, _ in zip(batches(), range(8), strict=False)]
    rows[4] = rows[4] | {"x": np.full_like(rows[4]["x"], np.nan)}

    def given():
        for index, batch in enumerate(rows):
            if told and index == 6:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    made = trainer(tmp_path, save_every=100, log_every=100)
    bad = r"step 5: .*the batch holds NaN or infinity in 'x'"
    with pytest.raises(NonFiniteError, match=bad) as end:
        made.train(begin(made), given, num_steps=8)
    assert end.value.__notes__ == ["step 4, before it, is saved; the same command goes on"]
    assert {p.name for p in tmp_path.iterdir() if p.name.isdigit()} == {"4"}
    again = trainer(tmp_path, save_every=100, on_nonfinite="skip")
    state = again.train(begin(again), rows, num_steps=8)
    assert int(state.step) == 8
    assert [row["finite"] for row in again.history] == [1, 1, 1, 1, 0, 1, 1, 1]
    whole = trainer(on_nonfinite="skip")
    assert same(state, whole.train(begin(whole), rows, num_steps=8))


def test_parameters_that_an_update_made_infinite_are_not_saved(tmp_path):
    made = trainer(tmp_path, optimizer=optax.sgd(float("inf")), save_every=100, log_every=100)
    with pytest.raises(NonFiniteError, match=r"parameter .* is not finite before") as end:
        made.train(begin(made), batches(), num_steps=6)
    step = int(str(end.value).partition(":")[0].removeprefix("step ")) - 1
    assert end.value.__notes__ == [
        f"step {step} is not saved: not all of its parameters are finite"
    ]
    assert not [path for path in tmp_path.iterdir() if path.name.isdigit()]


@pytest.mark.parametrize("saves", [True, False])
def test_a_last_update_that_is_no_number_is_neither_saved_nor_given_back(tmp_path, saves):
    """Its loss and gradient were finite; the loss after it would tell."""

    def rate(count):
        return jnp.where(count == 3, jnp.nan, 1e-2)

    made = trainer(
        tmp_path if saves else None, save_every=2, on_nonfinite="skip",
        optimizer=optax.sgd(rate),  # whose rate nobody knows
    )  # fmt: skip
    with pytest.raises(NonFiniteError, match=r"step 4: parameter .* is not finite after it"):
        made.train(begin(made), batches(), num_steps=4)
    found = [path.name for path in tmp_path.iterdir() if path.name.isdigit()]
    assert found == (["2"] if saves else [])


def test_sigterm_saves_and_ends_with_code_0(tmp_path):
    def interrupted():
        for index, batch in enumerate(batches()):
            if index == 7:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    made = trainer(tmp_path, save_every=0)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted) as end:
        made.train(begin(made), interrupted, num_steps=STEPS)
    assert end.value.code == 0
    assert signal.getsignal(signal.SIGTERM) == before
    assert (tmp_path / str(end.value.step)).is_dir()
    whole = trainer()
    want = whole.train(begin(whole), batches(), num_steps=STEPS)
    again = trainer(tmp_path)
    assert same(again.train(begin(again), batches(), num_steps=STEPS), want)


def test_a_run_stays_in_its_directory_wherever_its_data_goes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()

    def moving():
        for index, batch in enumerate(batches()):
            if index == 2:
                os.chdir(tmp_path / "elsewhere")
            yield batch

    made = trainer("run")
    made.train(begin(made), moving, num_steps=4)
    assert len(read_history(tmp_path / "run")) == 4
    assert not list((tmp_path / "elsewhere").iterdir())


def test_partly_given_parameters_take_their_places():
    made = trainer()
    kernel = np.full((6, 8), 0.25, np.float32)
    state = made.create_train_state(
        jax.random.key(0), next(iter(batches())), params={"Dense_0": {"kernel": kernel}}
    )
    assert np.array_equal(state.params["Dense_0"]["kernel"], kernel)
    assert same(state.params["Dense_1"], begin(made).params["Dense_1"])
    with pytest.raises(ValueError, match=r"Dense_0/kernel: found \[2\], the model has \[6, 8\]"):
        made.create_train_state(
            jax.random.key(0), next(iter(batches())), params={"Dense_0": {"kernel": np.ones(2)}}
        )


def test_init_args_are_those_of_the_module():
    made = trainer(init_args=[np.zeros((1, 6), np.float32)], init_kwargs={"training": False})
    state = begin(made)
    assert set(state.params) == {"Dense_0", "Dense_1", "BatchNorm_0"}
    assert set(state.model_state) == {"batch_stats"}


def test_checkpoint_of_another_model_names_the_leaves(finished):
    directory, _, _ = finished

    class Wider(nn.Module):
        @nn.compact
        def __call__(self, x, training=False):
            return nn.Dense(4, name="Dense_0")(x)

    def loss(params, batch, model_state, rng, apply_fn):
        return jnp.mean(apply_fn({"params": params}, batch["x"]) ** 2), {}, model_state

    made = trainer(directory, network=Wider(), loss_fn=loss)
    with pytest.raises(ValueError, match="leaves differ") as error:
        made.train(begin(made), batches(), num_steps=20)
    text = str(error.value)
    assert "params/Dense_0/kernel: the checkpoint has [6, 8] float32, this run [6, 4]" in text
    assert "params/Dense_1/kernel: the checkpoint has [8, 3] float32, this run none" in text


def test_a_directory_of_another_run_is_not_written_over(finished):
    directory, _, _ = finished
    made = trainer(directory, restore=False)
    with pytest.raises(ValueError, match="holds checkpoints up to step 12 of another run"):
        made.train(begin(made), batches(), num_steps=20)


def test_profile_writes_a_trace(tmp_path, monkeypatch):
    options = jax.profiler.ProfileOptions()
    options.enable_hlo_proto = False  # else it writes the programs of all tests before, for seconds
    start = partial(jax.profiler.start_trace, profiler_options=options)
    monkeypatch.setattr(jax.profiler, "start_trace", start)
    made = trainer(tmp_path, enable_profiling=True, profile_steps=2, save_every=0)
    made.train(begin(made), batches(), num_steps=8)
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_a_mesh_of_one_device_gives_the_same_numbers():
    plain, meshed = trainer(), trainer(mesh=make_mesh())
    one = plain.train(begin(plain), batches(), num_steps=4)
    other = meshed.train(begin(meshed), batches(), num_steps=4)
    assert same(one, other)


def test_event_file_and_curves_are_written(tmp_path):
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    pytest.importorskip("matplotlib")
    made = trainer(tmp_path, plot=True, save_every=0)
    made.train(begin(made), batches(), num_steps=8)
    assert (tmp_path / "training_curves.png").stat().st_size > 1000
    (file,) = tmp_path.glob("events.out.tfevents.*")
    content, found = file.read_bytes(), {}
    while content:
        size = int.from_bytes(content[:8], "little")
        event = event_pb2.Event.FromString(content[12 : 12 + size])
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
        content = content[16 + size :]
    assert [step for step, _ in found["train/loss"]] == [4, 8]
    mean = np.mean([row["loss"] for row in made.history[:4]])
    assert found["train/loss"][0][1] == pytest.approx(mean, rel=1e-6)
    assert all(rate > 0 for _, rate in found["train/steps_per_second"])
    rows = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 9))
