"""Praxis' optimizer states become optax's, checked against optax itself and by closed forms."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from leaves import MemoryLeaf, own_readers, values_of

from converters.arrays.lazy import Array, Source
from converters.arrays.leaf import whole
from converters.errors import CheckpointError, MappingError, OptimizerError
from converters.families import Table
from converters.mappings import generic
from converters.paxml.optimizer import (
    ConvertedOptimizer,
    Slot,
    convert_optimizer,
    optimizer_kinds,
    raw_optimizer,
)
from converters.rules import Rule

BETAS = {"beta1": 0.9, "beta2": 0.99}
GROUP = "p#3#i-1"
Values = Mapping[str, np.ndarray]


def convert(
    states: Values, *rules: Rule, betas: Mapping[str, float] | None = None
) -> ConvertedOptimizer:
    """`states` by leaf path below `opt_states/0/`."""
    arrays: dict[str, Array] = {}
    for name, values in states.items():
        path = f"opt_states/{name}" if name.startswith("1/") else f"opt_states/0/{name}"
        arrays[path] = Source(MemoryLeaf(values, values.shape, path))
    table = Table("custom", rules or generic.RULES)
    return convert_optimizer(arrays, table.apply_part, BETAS if betas is None else betas)


def read(found: ConvertedOptimizer) -> dict[str, np.ndarray]:
    return {m.target: m.array.read(whole(m.array.shape), own_readers) for m in found.leaves}


def count(value: int | list[int]) -> np.ndarray:
    return np.array(value, np.int32)


def adam(steps: int = 4, **variables: np.ndarray) -> dict[str, np.ndarray]:
    """Praxis' Adam in one group: its counter alone, then `count`, `m` and `v`."""
    states = {"no_prefix/0/count": count(steps), "no_prefix/2/count": count(steps)}
    for name, values in variables.items():
        states[f"no_prefix/2/m/params/{name}"] = values
        states[f"no_prefix/2/v/params/{name}"] = values * values
    return states


def assert_equal(found: Values, wanted: Values) -> None:
    assert set(found) == set(wanted)
    for path, values in wanted.items():
        assert (found[path].dtype, found[path].shape) == (values.dtype, values.shape), path
        assert found[path].tobytes() == values.tobytes(), path


# Adam.


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
    # To the last bit: what was divided is multiplied, in float64, and rounded once.
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


@pytest.mark.parametrize(("betas", "missing"), [({}, "beta1"), ({"beta1": 0.9}, "beta2")])
def test_a_beta_that_is_not_known_is_not_guessed(betas: dict[str, float], missing: str):
    with pytest.raises(OptimizerError, match=rf"{missing} is not known: .* Give --set {missing}="):
        convert(adam(w=values_of((2,))), betas=betas)


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


# The other kinds.


def adafactor(group: str = "no_prefix", **slots: np.ndarray) -> dict[str, np.ndarray]:
    """ShardedAdafactor of one variable `w`; slots that are not given are unused."""
    stack = (3,) if group == GROUP else ()
    unused = np.zeros((*stack, 1), np.float32)
    fields = {name: slots.get(name, unused) for name in ("m", "m_scale", "vr", "vc", "v")}
    return {
        f"{group}/1/count": np.full(stack, 9, np.int32),
        **{f"{group}/1/{name}/params/w": values for name, values in fields.items()},
    }


def test_adafactors_slots_stay_as_they_are():
    slots = {
        "m": values_of((4, 6), "int8"),
        "m_scale": values_of((6,)),
        "vr": values_of((4,)),
        "vc": values_of((6,)),
    }
    found = convert(adafactor(**slots), Rule("kernel", "w"), betas={})
    place = "state/optimizer/sharded_adafactor"
    assert_equal(
        read(found),
        {
            f"{place}/count": count(9),
            "state/optimizer/schedule/count": count(9),
            **{f"{place}/{name}/kernel": values for name, values in slots.items()},
            f"{place}/v/kernel": np.zeros(1, np.float32),
        },
    )
    assert found.kinds == ["sharded_adafactor"]


@pytest.mark.parametrize(
    "op", ["transpose 1 0", "split 0 2 2", "merge 0", "unstack 0", "part 0", "stack 1"]
)
def test_the_axes_of_factored_state_may_not_change(op: str):
    target = "kernel"
    target += "/{i}" if op.startswith("unstack") else "/{a|b}" if op.startswith("part") else ""
    states = {
        name.replace("/w", "/w/0") if op.startswith("stack") else name: values
        for name, values in adafactor(
            m=values_of((4, 6), "int8"),
            m_scale=values_of((6, 6)),
            vr=values_of((4, 4)),
            vc=values_of((6, 6)),
            v=values_of((4, 4)),
        ).items()
    }
    rule = Rule(target, "w/{j}" if op.startswith("stack") else "w", op)
    with pytest.raises(OptimizerError, match=rf"^kernel.*'{op}' would change the axes"):
        convert(states, rule)


def test_stacked_layers_of_factored_state_come_apart_and_together():
    slots = {
        "m": values_of((3, 4, 6), "int8"),
        "m_scale": values_of((3, 6)),
        "vr": values_of((3, 4)),
    }
    apart = read(convert(adafactor(GROUP, **slots), Rule("layers_{i}", "w", "unstack 0")))
    place = "state/optimizer/sharded_adafactor"
    for name, values in slots.items():
        for i in range(3):
            assert apart[f"{place}/{name}/layers_{i}"].tobytes() == values[i].tobytes()
    assert apart[f"{place}/v/layers_2"].shape == (1,)

    separate = {"no_prefix/1/count": count(9)}
    for name in ("m", "m_scale", "vr", "vc", "v"):
        separate |= {
            f"no_prefix/1/{name}/params/x_{i}": apart[f"{place}/{name}/layers_{i}"]
            for i in range(3)
        }
    together = read(convert(separate, Rule("w", "x_{i}", "stack 0")))
    assert together[f"{place}/m/w"].tobytes() == slots["m"].tobytes()
    assert together[f"{place}/v/w"].shape == (3, 1)


def test_stages_of_a_pipeline_merge_in_factored_state():
    """Stage-major layers: two stages of two layers, each layer a variable of its group."""
    states: dict[str, np.ndarray] = {"p#2#sstage/1/count": count([9, 9])}
    for name, shape in {
        "m": (2, 4, 6),
        "m_scale": (2, 6),
        "vr": (2, 4),
        "vc": (2, 6),
        "v": (2, 1),
    }.items():
        states |= {f"p#2#sstage/1/{name}/params/x_{j}": values_of(shape, seed=j) for j in range(2)}
    found = read(convert(states, Rule("layers", "x_{j}", "stack 1; merge 0")))
    m = found["state/optimizer/sharded_adafactor/m/layers"]
    wanted = [values_of((2, 4, 6), seed=j)[stage] for stage in range(2) for j in range(2)]
    assert m.tobytes() == np.stack(wanted).tobytes()
    with pytest.raises(OptimizerError, match="would change the axes"):
        convert(states, Rule("layers", "x_{j}", "stack 1; merge 1"))


def test_momentum_and_the_count_of_its_schedule():
    trace = values_of((4,))
    found = convert({"2/0/trace/params/w": trace, "2/1/count": count(5)}, betas={})
    assert_equal(
        read(found),
        {"state/optimizer/momentum/trace/w": trace, "state/optimizer/schedule/count": count(5)},
    )
    assert (found.kinds, found.ignored) == (["momentum"], [])


def test_an_average_of_the_parameters_beside_adam():
    ema = values_of((4,), seed=3)
    states = adam(w=values_of((4,))) | {
        "no_prefix/4/count": count(4),
        "no_prefix/4/ema/params/w": ema,
    }
    found = convert(states)
    assert found.kinds == ["adam", "ema"]
    values = read(found)
    assert values["state/optimizer/ema/ema/w"].tobytes() == ema.tobytes()
    assert values["state/optimizer/ema/count"] == 4


def test_two_learners_have_a_place_each():
    states = adam(w=values_of((2,))) | {
        "1/2/count": count(4),
        "1/2/m/params/z": values_of((3,)),
        "1/2/v/params/z": values_of((3,)),
    }
    found = convert(states)
    assert {m.target.rpartition("/")[0] for m in found.leaves} == {
        f"state/optimizer_{learner}/{name}"
        for learner in (0, 1)
        for name in ("adam", "schedule", "adam/mu", "adam/nu")
    }


# What is kept as it is.


def test_a_state_of_an_unknown_kind_is_kept_as_it_is():
    states = {"2/count": count(3), "2/momentum_buffer/params/w": values_of((4,))}
    found = convert(states, betas={})
    assert_equal(
        read(found), {f"state/opt_states_raw/0/{name}": values for name, values in states.items()}
    )
    assert found.kinds == ["unknown"]
    assert found.notes == [
        "optimizer state kept as it is below state/opt_states_raw/: fields count, momentum_buffer"
    ]


@pytest.mark.parametrize("name", ["2/inner_state/0/m/params/w", "x/y", "2/ema/other/w/0"])
def test_a_place_of_an_unknown_form_is_kept_as_it_is(name: str):
    found = convert({name: values_of((2,))})
    assert [m.target for m in found.leaves] == [f"state/opt_states_raw/0/{name}"]
    assert found.kinds == ["unknown"]
    assert len(found.notes) == 1


def test_two_states_of_one_kind_are_kept_as_they_are():
    states = adam(w=values_of((2,)))
    states |= {name.replace("/2/", "/3/"): values for name, values in states.items()}
    found = convert(states)
    assert all(m.target.startswith("state/opt_states_raw/0/no_prefix/") for m in found.leaves)
    assert len(found.leaves) == 6
    assert "two transforms of one kind" in found.notes[0]


def test_two_states_that_would_drive_one_schedule_are_kept_as_they_are():
    states = adam(w=values_of((2,))) | adafactor(m=values_of((2,)))
    found = convert(states)
    assert all(m.target.startswith("state/opt_states_raw/") for m in found.leaves)


def test_a_moment_of_no_variable_is_kept_as_it_is():
    found = convert({"2/count": count(3), "2/m": values_of((2,)), "2/v/params/w": values_of((2,))})
    assert all(m.target.startswith("state/opt_states_raw/0/2/") for m in found.leaves)
    assert "opt_states/0/2/m belongs to no variable" in found.notes[0]


def test_raw_keeps_everything():
    arrays: dict[str, Array] = {}
    for name, values in adam(w=values_of((2,))).items():
        path = f"opt_states/0/{name}"
        arrays[path] = Source(MemoryLeaf(values, values.shape, path))
    found = raw_optimizer(arrays)
    assert {m.target: m.array for m in found.leaves} == {
        path.replace("opt_states/", "state/opt_states_raw/"): array
        for path, array in arrays.items()
    }
    assert (found.ignored, found.notes) == ([], [])


def test_no_state_at_all():
    found = convert({})
    assert (found.leaves, found.kinds) == ([], [])


@pytest.mark.parametrize(
    ("paths", "kinds"),
    [
        (["0/0/count", "0/2/count", "0/2/m/params/w", "0/2/v/params/w"], ["adam"]),
        (["0/2/0/trace/params/w", "0/2/1/count"], ["momentum"]),
        (["0/2/count", "0/2/m/params/w"], ["unknown"]),
        (["0/0/count"], []),
        ([], []),
    ],
)
def test_kinds_by_the_names_alone(paths: list[str], kinds: list[str]):
    assert optimizer_kinds([f"opt_states/{path}" for path in paths]) == kinds


@pytest.mark.parametrize(
    ("path", "slot"),
    [
        ("0/2/m/params/lm/x_layers_0/w", (0, "", "2", "m", "lm/x_layers_0/w")),
        ("1/no_prefix/2/count", (1, "no_prefix", "2", "count", None)),
        ("0/p#24#i-1/2/v/params/w", (0, "p#24#i-1", "2", "v", "w")),
        ("0/p#2.24#sstage.i-1/2/v/params/w", (0, "p#2.24#sstage.i-1", "2", "v", "w")),
        ("0/p_24_i-1/1/m_scale/params/w", (0, "p_24_i-1", "1", "m_scale", "w")),
        ("0/2/0/trace/params/w", (0, "", "2/0", "trace", "w")),
        ("0/2/m/non_trainable/w", None),
        ("0", None),
    ],
)
def test_a_slot_by_its_path(path: str, slot: tuple | None):
    found = Slot.parse(f"opt_states/{path}")
    if slot is None:
        assert found is None
    else:
        assert found is not None
        assert (found.learner, found.group, found.transform, found.field, found.variable) == slot
