"""The logged rate is the one that moved the parameter, whatever counts the updates.

Plain SGD on `loss = -w` adds the rate to w, so that the movement of w is the rate.
"""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from efficientids_flax.train import Trainer
from efficientids_flax.train.optimizer import (
    applied_rate,
    averaged_params,
    create_learning_rate_schedule,
    create_optimizer,
    renewed,
)
from efficientids_flax.train.step import NonFiniteError
from efficientids_flax.tree import leaves_by_path
from tests.efficientids_flax.compiled import compiled


class Number(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        return self.param("w", nn.initializers.zeros, ()) * x


def loss_fn(params: Any, batch: Any, model_state: Any, rng: Any, apply_fn: Any) -> Any:
    w = apply_fn({"params": params}, 1.0)
    return -w * jnp.mean(batch["x"]), {"w": w}, model_state


def halved(count: Any) -> Any:
    return 2.0**-count


BATCH = {"x": np.ones(2, np.float32)}


def moved(optimizer: Any, steps: int = 6, bad: int = 0, **options: Any) -> tuple[Any, Any]:
    """(movement, logged rate) of each step; step `bad` is not finite."""
    start = options.pop("start", 0)

    def batches() -> Any:
        for number in range(1, steps + 1):
            yield {"x": np.full(2, np.nan, np.float32)} if number == bad else BATCH

    trainer = Trainer(Number(), optimizer, loss_fn=loss_fn, progress="none", **options)
    state = trainer.create_train_state(
        jax.random.key(0), BATCH, params={"w": np.float32(0.0)}, step=start
    )
    state = trainer.train(state, batches, num_steps=start + steps)
    values = [row["w"] for row in trainer.history] + [float(state.params["w"])]
    return np.diff(values), np.asarray([row["learning_rate"] for row in trainer.history])


@cache
def descent(rate: Any) -> Any:
    return create_optimizer(rate, "sgd", momentum=0.0)


@pytest.mark.parametrize(
    "rate",
    [0.25, halved, create_learning_rate_schedule(0.5, 2, 6, "cosine")],
    ids=["constant", "function", "cosine"],
)
@pytest.mark.parametrize("bad", [0, 1, 3])
def test_after_steps_that_were_left_out(rate: Any, bad: int):
    change, logged = moved(descent(rate), bad=bad, on_nonfinite="skip")
    taken = [step for step in range(6) if step + 1 != bad]
    np.testing.assert_allclose(logged[taken], change[taken], rtol=1e-5, atol=1e-7)


def test_after_a_given_step():
    change, logged = moved(descent(halved), start=40)
    np.testing.assert_allclose(logged, change, rtol=1e-6)
    assert logged[0] == 1.0  # the optimizer begins anew, so does its count


def test_of_optimizers_that_are_wrapped():
    wrapped = [
        optax.apply_if_finite(optax.sgd(halved), 10),
        optax.chain(optax.clip(10.0), optax.sgd(halved)),
        optax.inject_hyperparams(optax.sgd)(learning_rate=halved),
        optax.multi_transform(
            {"a": optax.sgd(halved)}, lambda tree: jax.tree.map(lambda _: "a", tree)
        ),
    ]
    for optimizer in wrapped:
        change, logged = moved(optimizer, bad=2, on_nonfinite="skip", learning_rate=halved)
        np.testing.assert_allclose(np.delete(logged, 1), np.delete(change, 1), rtol=1e-6)


def test_of_gradients_collected_over_steps():
    collected: Any = optax.MultiSteps(optax.sgd(halved), 2).gradient_transformation()
    change, logged = moved(collected, learning_rate=halved)
    np.testing.assert_allclose(logged[1::2], change[1::2], rtol=1e-6)
    assert not change[::2].any()


def test_of_injected_hyperparameters_without_a_schedule():
    change, logged = moved(optax.inject_hyperparams(optax.sgd)(learning_rate=0.125))
    np.testing.assert_allclose(logged, change, rtol=1e-6)


@pytest.mark.parametrize("bad", [jnp.nan, -0.5])
@pytest.mark.parametrize("kind", ["own", "injected"])
def test_a_rate_that_is_no_rate_ends_the_run_before_its_step(kind: str, bad: float):
    def rate(count: Any) -> Any:
        return jnp.where(count >= 2, bad, 0.5)

    optimizer: Any = create_optimizer(rate, "sgd", momentum=0.0)
    if kind == "injected":
        optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=rate)
    trainer = Trainer(Number(), optimizer, loss_fn=loss_fn, progress="none")
    state = trainer.create_train_state(jax.random.key(0), BATCH)
    with pytest.raises(NonFiniteError, match=f"step 3: learning_rate {bad}: the schedule gives"):
        trainer.train(state, [BATCH], num_steps=5)
    assert trainer.last_state is not None
    assert float(trainer.last_state.params["w"]) == 1.0


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        (lambda count: 0.1 if count < 5 else 0.01, "the schedule asks for the value of its count"),
        (lambda count: jnp.ones(2), "expected one number of the schedule, found"),
        (lambda count: None, "expected one number of the schedule, found None"),
    ],
)
def test_a_schedule_that_gives_no_number_is_told(rate: Any, message: str):
    with pytest.raises(ValueError, match=f"learning_rate: {message}"):
        moved(create_optimizer(rate, "sgd", momentum=0.0))


def test_what_is_not_known_is_not_told():
    state, step = optax.sgd(1e-3).init({"w": jnp.zeros(())}), jnp.int32(3)
    assert applied_rate(None, state, state, step) is None
    assert applied_rate(halved, state, state, step) == 0.125  # no count: by the step


@pytest.mark.parametrize(
    "optimizer",
    [
        create_optimizer(halved, "adafactor"),
        create_optimizer(halved, "sharded_adafactor"),
        optax.adam(halved),
        optax.inject_hyperparams(optax.sgd)(learning_rate=halved),
    ],
    ids=["adafactor", "sharded", "optax", "injected"],
)
@pytest.mark.parametrize("taken", [None, 5])
def test_a_rate_goes_on_where_another_optimizer_takes_over(optimizer: Any, taken: int | None):
    """Nothing of it was there before, or a count of updates was."""
    params, optimizer = {"w": np.ones((2, 3), np.float32)}, compiled(optimizer)
    fresh = optimizer.init(params)
    missing = [path for path in leaves_by_path(fresh) if taken is None or path != "schedule/count"]
    if taken is not None and "schedule/count" in leaves_by_path(fresh):
        fresh["schedule"] = optax.ScaleByScheduleState(jnp.int32(taken))
    else:
        taken = 7
    before = renewed(optimizer, params, fresh, missing, jnp.int32(7))
    _, after = optimizer.update(params, before, params)
    assert applied_rate(halved, before, after, jnp.int32(0)) == 2.0**-taken
    assert jax.tree.structure(before) == jax.tree.structure(fresh)


def test_an_average_begins_with_the_parameters_that_are_there():
    optimizer = create_optimizer(1e-2, ema_decay=0.9)
    first, now = {"w": jnp.zeros((2, 3))}, {"w": jnp.ones((2, 3))}
    state = optimizer.init(first)
    moments = [path for path in leaves_by_path(state) if not path.startswith("ema/")]
    found = renewed(optimizer, now, state, leaves_by_path(state).keys() - moments, jnp.int32(7))
    assert (averaged_params(found, now)["w"] == 1).all()
    assert found["schedule"].count == 0  # was there
