"""A step against hand-written gradients and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from efficientids_flax.train.state.carried import TrainState
from efficientids_flax.train.step.function import StepOptions, make_step
from tests.efficientids_flax.train.networks import Network, data, loss_fn

RATE = 0.1


def linear(params, batch, model_state, rng, apply_fn):
    """Weighted squares, whose gradient is known: d/dw = 2 mean_w((w x - y) x)."""
    del rng, apply_fn
    weights = batch["weights"]
    errors = params["a"]["w"] * batch["x"] - batch["y"]
    total = jnp.sum(weights)
    loss = jnp.sum(weights * errors**2) / total + 0.0 * jnp.sum(params["b"]["w"])
    return loss, {"total_weight": total}, model_state


def gradient(w, batch):
    error = w * batch["x"] - batch["y"]
    return 2 * np.sum(batch["weights"] * error * batch["x"]) / np.sum(batch["weights"])


def batch_of(rows=8, seed=0):
    rng = np.random.default_rng(seed)
    found = {name: rng.normal(size=rows).astype(np.float32) for name in ("x", "y")}
    return found | {"weights": rng.integers(1, 5, rows).astype(np.float32)}


def state_of(optimizer, frozen=None):
    params = {"a": {"w": jnp.float32(0.5)}, "b": {"w": jnp.ones(3)}}
    return TrainState.create(params, optimizer, rng=jax.random.key(0), frozen=frozen)


def take(step, state, batch, alive=True):
    return jax.jit(step)(state.replace(frozen={}), state.frozen, batch, jnp.asarray(alive))


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_takes_the_gradient_of_the_whole_batch_in_parts(parts):
    """With weights that differ between the parts."""
    optimizer = optax.sgd(RATE)
    step = make_step(linear, None, optimizer, StepOptions(accumulation=parts))  # type: ignore[arg-type]
    batch = batch_of()
    state, alive, metrics = take(step, state_of(optimizer), batch)
    want = 0.5 - RATE * gradient(0.5, batch)
    np.testing.assert_allclose(state.trained["a"]["w"], want, rtol=1e-6)
    np.testing.assert_allclose(metrics["total_weight"], batch["weights"].sum(), rtol=1e-6)
    assert bool(alive)
    assert int(state.step) == 1


def test_a_part_without_any_weight_does_not_count():
    """Its loss is 0 / 0."""
    optimizer = optax.sgd(RATE)
    step = make_step(linear, None, optimizer, StepOptions(accumulation=2))  # type: ignore[arg-type]
    batch = batch_of()
    batch["weights"][4:] = 0
    state, alive, metrics = take(step, state_of(optimizer), batch)
    want = 0.5 - RATE * gradient(0.5, {name: value[:4] for name, value in batch.items()})
    np.testing.assert_allclose(state.trained["a"]["w"], want, rtol=1e-6)
    assert bool(alive)
    assert np.isfinite(metrics["loss"])


def test_frozen_parameters_have_no_gradient_and_no_state():
    optimizer = optax.adamw(RATE, weight_decay=0.5)
    state = state_of(optimizer, frozen=["b"])
    assert not any(leaf.shape == (3,) for leaf in jax.tree.leaves(state.opt_state))
    step = make_step(linear, None, optimizer, StepOptions())  # type: ignore[arg-type]
    jaxpr = jax.make_jaxpr(step)(
        state.replace(frozen={}), state.frozen, batch_of(), jnp.bool_(True)
    )
    new, _, _ = take(step, state, batch_of())
    assert set(new.trained) == {"a"}
    # Nothing of the frozen shape is computed but its use in the loss (a product and its sum).
    made = [v for eqn in jaxpr.eqns for v in eqn.outvars if v.aval.shape == (3,)]
    assert len(made) <= 1


@pytest.mark.parametrize("mode", ["skip", "stop"])
def test_a_step_that_is_not_finite_changes_nothing(mode):
    optimizer = optax.adam(RATE)
    step = make_step(linear, None, optimizer, StepOptions(on_nonfinite=mode))  # type: ignore[arg-type]
    first, alive, _ = take(step, state_of(optimizer), batch_of())
    bad = batch_of() | {"x": np.full(8, np.inf, np.float32)}
    held, alive, metrics = take(step, first, bad, alive)
    for name in ("trained", "opt_state", "model_state"):
        for new, old in zip(
            jax.tree.leaves(getattr(held, name)),
            jax.tree.leaves(getattr(first, name)),
            strict=True,
        ):
            assert np.asarray(new).tobytes() == np.asarray(old).tobytes()
    assert float(metrics["finite"]) == 0
    assert int(held.step) == (2 if mode == "skip" else 1)
    after, _, _ = take(step, held, batch_of(seed=1), alive)
    moved = float(after.trained["a"]["w"]) != float(held.trained["a"]["w"])
    assert moved == (mode == "skip")  # 'stop' refuses all later steps


def test_dropout_follows_the_number_of_the_step_alone():
    network, optimizer = Network(dropout=0.5), optax.sgd(0.0)
    batch = {name: value[:8] for name, value in data().items()}
    variables = network.init(jax.random.key(1), batch["x"])
    state = TrainState.create(
        variables["params"], optimizer, rng=jax.random.key(2),
        model_state={"batch_stats": variables["batch_stats"]},
    )  # fmt: skip
    step = jax.jit(make_step(loss_fn, network.apply, optimizer, StepOptions()))
    one, alive, first = step(state, {}, batch, jnp.asarray(True))
    _, _, second = step(one, {}, batch, alive)
    _, _, again = step(state, {}, batch, alive)
    assert float(first["loss"]) == float(again["loss"]) != float(second["loss"])


def test_mixed_precision_computes_in_bfloat16_and_keeps_float32():
    seen = []

    def loss(params, batch, model_state, rng, apply_fn):
        seen.extend([params["a"]["w"].dtype, batch["x"].dtype])
        return linear(params, batch, model_state, rng, apply_fn)

    optimizer = optax.sgd(RATE)
    step = make_step(loss, None, optimizer, StepOptions(mixed_precision=True))  # type: ignore[arg-type]
    batch = batch_of()
    state, _, _ = take(step, state_of(optimizer), batch)
    assert seen == [jnp.bfloat16] * 2
    assert state.trained["a"]["w"].dtype == jnp.float32
    # bfloat16 has 8 bits: a product of rounded numbers is off by a few times 2^-8.
    want = 0.5 - RATE * gradient(0.5, batch)
    np.testing.assert_allclose(state.trained["a"]["w"], want, atol=0.02)
    assert float(state.trained["a"]["w"]) != np.float32(want)


def test_remat_gives_the_same_step():
    optimizer = optax.sgd(RATE)
    batch = batch_of()
    plain, again = (
        take(
            make_step(linear, None, optimizer, StepOptions(remat=remat)), state_of(optimizer), batch
        )  # type: ignore[arg-type]
        for remat in (False, True)
    )
    np.testing.assert_allclose(plain[0].trained["a"]["w"], again[0].trained["a"]["w"], rtol=1e-6)


def test_a_metric_that_is_no_scalar_is_named():
    def loss(params, batch, model_state, rng, apply_fn):
        found, _, state = linear(params, batch, model_state, rng, apply_fn)
        return found, {"logits": batch["x"]}, state

    step = make_step(loss, None, optax.sgd(RATE), StepOptions())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"metrics: expected scalars, found logits is \[8\]"):
        take(step, state_of(optax.sgd(RATE)), batch_of())


def test_a_missing_field_is_named_with_those_there_are():
    batch = {name: value for name, value in batch_of().items() if name != "weights"}
    step = make_step(linear, None, optax.sgd(RATE), StepOptions())  # type: ignore[arg-type]
    with pytest.raises(KeyError, match=r"no field 'weights'; it has x, y"):
        take(step, state_of(optax.sgd(RATE)), batch)
