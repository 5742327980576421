"""What a loss function returns: metrics that are no numbers, weights below 0 or without a value."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from efficientids_flax.train.step import NonFiniteError, WrongValues
from efficientids_flax.train.step.returned import returned
from tests.efficientids_flax.train.networks import arrays, batches, begin, loss_fn, trainer

ONE = jnp.float32(1)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"m": "good", "n": None}, "expected scalars, found m is 'good', n is None"),
        ({"m": [ONE, ONE], "n": {"a": ONE}}, "expected scalars, found m is a list, n is a dict"),
        ({"m": jnp.ones(2), "n": 1j}, r"m is \[2\], n is 1j"),
        ({3: 1.0}, "found 3 as a name"),
        ({"wrong/m": 1.0}, "wrong/m: names of the trainer's own"),
        ({"eval_m": 1.0, "test_m": 1.0}, "eval_m, test_m: names of the trainer's own"),
        (None, "expected a dict of names to scalars, found None"),
    ],
)
def test_metrics_that_are_no_numbers_are_named(metrics, message):
    with pytest.raises(ValueError, match=f"metrics: .*{message}"):
        returned((ONE, metrics, {}))


def test_numbers_of_any_kind_are_metrics():
    given = {"a": 2**40, "b": np.int64(3), "c": True, "d": ONE > 0, "e": jnp.bfloat16(2)}
    _, metrics, _ = returned((ONE, given, {}))
    assert [float(value) for value in metrics.values()] == [2**40, 3, 1, 1, 2]


def test_a_model_state_left_out_is_told():
    with pytest.raises(ValueError, match="expected the model state that it"):
        returned((ONE, {}, None))


def weighted(weight):
    """The loss of the tests with a weight for each batch, made of its first row."""

    def loss(params, batch, model_state, rng, apply_fn):
        found = loss_fn(params, batch, model_state, rng, apply_fn)
        return found[0], {"total_weight": weight(batch["y"][0])}, found[2]

    return loss


@pytest.mark.parametrize("parts", [1, 2])
def test_a_weight_below_zero_is_refused_before_it_turns_the_gradient_around(parts):
    """One part of two has it: their sum, which is 0, says nothing."""
    made = trainer(
        loss_fn=weighted(lambda label: jnp.where(label == 0, 1.0, -1.0)),
        optimizer=optax.sgd(0.1),
        gradient_accumulation_steps=parts,
    )
    rows = next(iter(batches()))
    rows["y"] = np.arange(len(rows["y"]), dtype=np.int32) % 2 + (parts == 1)
    state = begin(made)
    before = arrays(state.params)
    with pytest.raises(WrongValues, match=r"step 1: total_weight: .* below 0"):
        made.train(state, [rows], num_steps=2)
    assert made.last_state is not None
    np.testing.assert_equal(arrays(made.last_state.params), before)


def test_a_weight_that_is_no_number_is_named():
    made = trainer(loss_fn=weighted(lambda label: jnp.nan))
    with pytest.raises(NonFiniteError, match="step 1: total_weight nan: the loss function gave"):
        made.train(begin(made), batches(), num_steps=2)


def test_an_evaluation_names_weights_below_zero_and_without_a_value():
    made = trainer(loss_fn=weighted(lambda label: -1.0))
    with pytest.raises(ValueError, match="out of range: 6 in total_weight"):
        made.evaluate(begin(made), batches(epochs=1))
    made = trainer(loss_fn=weighted(lambda label: jnp.nan))
    with pytest.warns(UserWarning, match="a loss, a score or a weight is NaN"):
        made.evaluate(begin(made), batches(epochs=1))
