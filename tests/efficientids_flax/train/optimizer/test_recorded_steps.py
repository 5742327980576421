"""Steps of the real PAXml's learners: given gradients, and 100 steps of a small language model."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from efficientids_flax.backbone.decoder import Decoder
from efficientids_flax.losses import language_model_loss
from efficientids_flax.train.optimizer.learner import paxml_learner
from efficientids_flax.tree import flatten
from tests.efficientids_flax.train.optimizer.recorded import Recorded

STEPS = Recorded("steps")
HUNDRED = Recorded("hundred")
# Of a variable's largest magnitude. Some roundings of float32, over six steps.
ROUNDING = 1e-6
QUANTUM = 1  # of integers: a rounding of float32 can lie on either side of a half
# Losses of 100 steps: the bound of issue 4. Parameters, absolute: of Adam roundings of an update
# of at most 3e-3, of ShardedAdafactor some flips of its int8 momentum by one of 127 quanta of such
# an update, each of which goes on for 1 / (1 - 0.9) steps.
LOSSES, PARAMETERS = 1e-3, {"adam": 1e-6, "adafactor": 3 * 3e-3 / 127 / (1 - 0.9)}


def worst(found: Any, wanted: Any) -> float:
    """Largest difference, as a part of each leaf's largest magnitude."""
    found, wanted = flatten(found), flatten(wanted)
    assert set(found) == set(wanted)
    return max(
        float(np.abs(np.asarray(found[path], np.float64) - leaf).max())
        / max(float(np.abs(leaf).max()), 1e-30)
        for path, leaf in wanted.items()
    )


@pytest.mark.parametrize("name", STEPS.about["optimizers"])
def test_takes_the_steps_of_paxml(name: str):
    config = STEPS.optimizer(name)
    learner = paxml_learner(config, STEPS.model)
    params = STEPS.tree(STEPS.arrays["start"])
    state = jax.jit(learner.init)(params)

    @jax.jit
    def stepped(gradients: Any, state: Any, params: Any) -> Any:
        updates, state = learner.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    for step, packed in enumerate(STEPS.arrays["gradients"]):
        params, state = stepped(STEPS.tree(packed), state, params)
        wanted = STEPS.tree(STEPS.arrays[f"{name}/parameters"][step])
        assert worst(params, wanted) < ROUNDING, step
    counts = {int(part.count) for part in state.values() if "count" in part._fields}
    assert counts == {STEPS.about["optimizers"][name]["count"]}
    assert_state(name, state)


def assert_state(name: str, state: Any) -> None:
    """The state is the recorded one, and all of it."""
    config, recorded = STEPS.optimizer(name), set(STEPS.fields(name))
    for part in state.values():
        for field in set(part._fields) - {"count"}:
            values = getattr(part, field)
            moment = {"mu": ("m", config.beta1), "nu": ("v", config.beta2)}.get(field)
            if moment and moment[0] in recorded:  # Praxis stores it corrected
                theirs, beta = moment
                wanted = STEPS.state(name, theirs, values)
                wanted = {p: v * (1 - beta ** int(part.count)) for p, v in wanted.items()}
            else:
                theirs, wanted = field, STEPS.state(name, field, values)
            recorded.remove(theirs)
            for path, value in flatten(values).items():
                if value.dtype in (jnp.int8, jnp.int16):
                    assert np.abs(np.int32(value) - np.int32(wanted[path])).max() <= QUANTUM
                else:
                    assert worst({path: value}, {path: wanted[path]}) < ROUNDING, path
    assert not recorded


def test_the_recording_holds_a_step_that_is_skipped():
    assert np.isinf(STEPS.arrays["gradients"][3]).sum() == 1
    after = STEPS.arrays["adam/parameters"]
    assert np.array_equal(after[3], after[2])
    assert not np.array_equal(after[4], after[3])


@pytest.mark.parametrize("name", HUNDRED.about["optimizers"])
def test_a_hundred_steps_of_a_language_model(name: str):
    decoder, learner = Decoder(HUNDRED.model), paxml_learner(HUNDRED.optimizer(name), HUNDRED.model)
    words = HUNDRED.arrays["words"].astype(np.int32)  # [100, B, T + 1]

    def loss_of(params: Any, words: jax.Array) -> jax.Array:
        ids, labels = words[:, :-1], words[:, 1:]

        def logits(module: Decoder) -> jax.Array:
            return module.logits(module(ids, paddings=jnp.zeros(ids.shape)))

        found = decoder.apply({"params": params}, method=logits)
        batch = {"labels": labels, "weights": jnp.ones(ids.shape)}
        return language_model_loss(HUNDRED.model, jnp.asarray(found), batch).total_loss

    def step(carry: Any, words: jax.Array) -> Any:
        params, state = carry
        loss, gradients = jax.value_and_grad(loss_of)(params, words)
        updates, state = learner.update(gradients, state, params, loss=loss)
        return (optax.apply_updates(params, updates), state), loss

    params = HUNDRED.tree(HUNDRED.arrays["start"])
    with jax.default_matmul_precision("highest"):
        run = jax.jit(lambda params: jax.lax.scan(step, (params, learner.init(params)), words))
        (params, state), losses = run(params)
    np.testing.assert_allclose(losses, HUNDRED.arrays[f"{name}/losses"], rtol=LOSSES)
    wanted = flatten(HUNDRED.tree(HUNDRED.arrays[f"{name}/end"]))
    for path, values in flatten(params).items():
        np.testing.assert_allclose(values, wanted[path], rtol=0, atol=PARAMETERS[name])
    assert int(state["schedule"].count) == 100
