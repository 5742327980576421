"""Praxis' Adam becomes optax's, checked against optax itself and by closed forms."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from converters.errors import CheckpointError, MappingError, OptimizerError
from converters.rules.language import Rule
from tests.converters.paxml.state.optimizer_cases import (
    GROUP,
    adam,
    assert_equal,
    convert,
    count,
    read,
)
from tests.leaves import values_of


def praxis_moments(grads: list[np.ndarray], beta1: float, beta2: float) -> tuple[np.ndarray, ...]:
    """Moments as praxis/optimizers.py (`_ShardedAdamHelper.update_moments`) keeps them."""

    def decay(step: int, beta: float) -> float:
        # `bias_corrected_decay`: the moments come out divided by 1 - beta^steps.
        return beta * (1.0 - beta**step) / (1.0 - beta ** (step + 1.0))

    m = np.zeros(grads[0].shape, np.float64)
    v = np.zeros(grads[0].shape, np.float64)
    for step, grad in enumerate(grads):
        one, two = decay(step, beta1), decay(step, beta2)
        m = (1.0 - one) * grad + one * m
        v = (1.0 - two) * grad**2 + two * v
    return m.astype(np.float32), v.astype(np.float32)


@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_adams_moments_are_those_that_optax_reaches(steps: int):
    grads = [values_of((3, 4), seed=seed) for seed in range(steps)]
    transform = optax.scale_by_adam(0.9, 0.99)
    state: Any = transform.init({"w": jnp.zeros((3, 4))})
    for grad in grads:
        _, state = transform.update({"w": jnp.asarray(grad)}, state)

    m, v = praxis_moments(grads, 0.9, 0.99)
    found = read(convert({"2/count": count(steps), "2/m/params/w": m, "2/v/params/w": v}))
    assert set(found) == {
        "state/optimizer/adam/count",
        "state/optimizer/adam/mu/w",
        "state/optimizer/adam/nu/w",
        "state/optimizer/schedule/count",
    }
    np.testing.assert_allclose(
        found["state/optimizer/adam/mu/w"], state.mu["w"], rtol=2e-5, atol=1e-7
    )
    np.testing.assert_allclose(found["state/optimizer/adam/nu/w"], state.nu["w"], rtol=2e-5)
    assert found["state/optimizer/adam/count"] == state.count
    # Exact to the last bit: the quotient is multiplied in float64 and rounded once.
    wanted = (m.astype(np.float64) * (1.0 - 0.9**steps)).astype(np.float32)
    assert found["state/optimizer/adam/mu/w"].tobytes() == wanted.tobytes()


def test_stacked_groups_become_one_tree_each_by_its_own_count():
    top, layers = values_of((5,)), values_of((3, 4, 2), seed=1)
    states = adam(**{"lm/top": top}) | {
        f"{GROUP}/0/count": count([4, 4, 4]),
        f"{GROUP}/2/count": count([4, 4, 4]),
        f"{GROUP}/2/m/params/lm/layers/w": layers,
        f"{GROUP}/2/v/params/lm/layers/w": layers * layers,
    }
    found = convert(states)
    one, two = 1.0 - 0.9**4, 1.0 - 0.99**4

    def times(values: np.ndarray, factor: float) -> np.ndarray:
        return (values.astype(np.float64) * factor).astype(np.float32)

    assert_equal(
        read(found),
        {
            "state/optimizer/adam/count": count(4),
            "state/optimizer/schedule/count": count(4),
            "state/optimizer/adam/mu/lm/top": times(top, one),
            "state/optimizer/adam/mu/lm/layers/w": times(layers, one),
            "state/optimizer/adam/nu/lm/top": times(top * top, two),
            "state/optimizer/adam/nu/lm/layers/w": times(layers * layers, two),
        },
    )
    assert [path for path, _ in found.ignored] == [
        "opt_states/0/no_prefix/0/count",
        f"opt_states/0/{GROUP}/0/count",
    ]
    assert (found.kinds, found.notes) == (["adam"], [])


def test_stacked_moments_are_unstacked_with_their_parameter():
    layers = values_of((3, 4), seed=1)
    states = {
        f"{GROUP}/2/count": count([2, 2, 2]),
        f"{GROUP}/2/m/params/w": layers,
        f"{GROUP}/2/v/params/w": layers,
    }
    found = read(convert(states, Rule("layers_{i}/kernel", "w", "unstack 0; split 0 2 2")))
    for i in range(3):
        wanted = (layers[i].astype(np.float64) * (1.0 - 0.9**2)).astype(np.float32)
        values = found[f"state/optimizer/adam/mu/layers_{i}/kernel"]
        assert values.tobytes() == wanted.tobytes()
        assert values.shape == (2, 2)


def test_moments_keep_their_dtype_where_the_table_casts_the_parameter():
    found = convert(adam(w=values_of((2,))), Rule("w", "w", "cast bfloat16"))
    assert {m.array.dtype.name for m in found.leaves} == {"int32", "float32"}


def test_bfloat16_moments_stay_bfloat16():
    m = values_of((50,), "bfloat16")
    found = read(convert({"2/count": count(3), "2/m/params/w": m, "2/v/params/w": m}))
    wanted = (m.astype(np.float64) * (1.0 - 0.9**3)).astype(m.dtype)
    assert found["state/optimizer/adam/mu/w"].tobytes() == wanted.tobytes()


def test_before_the_first_step_moments_are_zero():
    found = read(convert(adam(0, w=np.zeros(4, np.float32))))
    assert not found["state/optimizer/adam/mu/w"].any()


def test_the_operations_of_a_moment_are_told():
    found = convert(adam(w=values_of((2, 3))), Rule("kernel", "w", "transpose 1 0"))
    told = {m.target.removeprefix("state/optimizer/"): m.rule.op for m in found.leaves}
    assert told == {
        "adam/count": "agree",
        "schedule/count": "agree",
        "adam/mu/kernel": "times 1 - beta1^count; transpose 1 0",
        "adam/nu/kernel": "times 1 - beta2^count; transpose 1 0",
    }


@pytest.mark.parametrize(("betas", "missing"), [({}, "beta1 and beta2"), ({"beta1": 0.9}, "beta2")])
def test_a_beta_that_is_not_known_is_not_guessed(betas: dict[str, float], missing: str):
    """The moments stay as stored, with a name that says so."""
    states = adam(3, w=values_of((2,)))
    converted = convert(states, betas=betas)
    found = read(converted)
    assert {path.removeprefix("state/optimizer/") for path in found} == {
        "adam_bias_corrected/count", "adam_bias_corrected/mu/w", "adam_bias_corrected/nu/w",
        "schedule/count",
    }  # fmt: skip
    stored = states["no_prefix/2/m/params/w"]
    assert found["state/optimizer/adam_bias_corrected/mu/w"].tobytes() == stored.tobytes()
    (note,) = converted.notes
    assert f"{missing} are not known" in note
    assert f"--set {missing.rsplit(maxsplit=1)[-1]}=..." in note


@pytest.mark.parametrize("steps", [0, 200_000])
def test_where_the_correction_is_one_no_rate_is_needed(steps: int):
    """0.9999^200000 is 2e-9, and float32 has no number between 1 - 6e-8 and 1."""
    states = adam(steps, w=values_of((2,)))
    converted = convert(states, betas={})
    found, stored = read(converted), states["no_prefix/2/m/params/w"]
    assert found["state/optimizer/adam/mu/w"].tobytes() == stored.tobytes()
    assert converted.notes == []


def test_counters_that_differ_are_an_error_when_they_are_read():
    states = adam(w=values_of((2,))) | {
        f"{GROUP}/2/count": count([4, 5, 4]),
        f"{GROUP}/2/m/params/v": values_of((3, 2)),
        f"{GROUP}/2/v/params/v": values_of((3, 2)),
    }
    with pytest.raises(CheckpointError, match=r"no_prefix/2/count = 4, .*2/count = \[4, 5, 4\]"):
        read(convert(states))


def test_a_count_that_does_not_fit_its_group():
    states = {
        f"{GROUP}/2/count": count([4, 4]),
        f"{GROUP}/2/m/params/w": values_of((3, 2)),
        f"{GROUP}/2/v/params/w": values_of((3, 2)),
    }
    with pytest.raises(OptimizerError, match=r"2/m/params/w: its group's count does not fit"):
        convert(states)


def test_a_group_without_a_count():
    states = adam(w=values_of((2,))) | {
        f"{GROUP}/2/m/params/v": values_of((3, 2)),
        f"{GROUP}/2/v/params/v": values_of((3, 2)),
    }
    with pytest.raises(OptimizerError, match=rf"m/params/v: its group '{GROUP}' has no count"):
        convert(states)


def test_frozen_parameters_have_no_moments():
    rules = [Rule("trained", "w", required=True), Rule("frozen", "f", required=True)]
    targets = {m.target for m in convert(adam(w=values_of((2,))), *rules).leaves}
    assert {t for t in targets if "count" not in t} == {
        "state/optimizer/adam/mu/trained",
        "state/optimizer/adam/nu/trained",
    }


def test_a_moment_of_a_variable_that_the_table_does_not_know():
    with pytest.raises(MappingError, match="other: no rule takes this leaf"):
        convert(adam(other=values_of((2,))), Rule("w", "w"))
