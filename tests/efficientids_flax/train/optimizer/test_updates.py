"""Learning rate, weight decay and average, beside what they must come to."""

import jax.numpy as jnp
import optax
import pytest

from efficientids_flax.train.optimizer.updates import average_params, scheduled


@pytest.mark.parametrize(("scaled", "change"), [(False, -0.5 * 8.0), (True, 8.0)])
def test_rate_and_decay(scaled: bool, change: float):
    """Step 1 of the rate 0.5 * count, on a direction of 8 and parameters of 3."""
    params = {"in": {"kernel": jnp.array([3.0]), "bias": jnp.array([3.0])}}
    update = scheduled(
        lambda count: 0.5 * count, scaled, 0.1, lambda path, value: path == "in/kernel"
    )
    directions = {"in": {"kernel": jnp.array([8.0]), "bias": jnp.array([8.0])}}
    found, state = update.update(directions, optax.ScaleByScheduleState(jnp.int32(1)), params)
    assert float(found["in"]["kernel"][0]) == pytest.approx(change - 0.5 * 0.1 * 3.0)
    assert float(found["in"]["bias"][0]) == pytest.approx(change)
    assert int(state.count) == 2


def test_decay_without_parameters():
    update = scheduled(lambda count: 1.0, False, 0.1, lambda path, value: True)
    with pytest.raises(ValueError, match="weight_decay: update needs the parameters"):
        update.update({"w": jnp.ones(2)}, update.init({}))


def test_the_average_of_the_parameters_is_of_those_before_the_update():
    average = average_params(0.5)
    state = average.init({"w": jnp.array([2.0])})
    for _ in range(2):
        updates, state = average.update({"w": jnp.array([9.0])}, state, {"w": jnp.array([4.0])})
    # decays min(0.5, 1/10), min(0.5, 2/11): 4 - 2 * 0.1 * 2/11
    assert float(state.ema["w"][0]) == pytest.approx(4 - 2 * 0.1 * 2 / 11, rel=1e-6)
    assert float(updates["w"][0]) == 9.0
