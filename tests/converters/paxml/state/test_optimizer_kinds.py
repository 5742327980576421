"""The other optimizer states: known kinds are converted, unknown ones are kept unchanged."""

import numpy as np
import pytest

from converters.arrays.lazy import Array, Source
from converters.paxml.state.optimizer import raw_optimizer
from converters.paxml.state.slots import Slot, optimizer_kinds
from converters.rules.language import Rule
from tests.converters.paxml.state.optimizer_cases import (
    GROUP,
    adam,
    assert_equal,
    convert,
    count,
    read,
)
from tests.leaves import MemoryLeaf, values_of

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
    found = convert(states, rule)
    assert_equal(read(found), {f"state/opt_states_raw/0/{k}": v for k, v in states.items()})
    assert found.kinds == ["unknown"]
    (note,) = found.notes
    assert note.startswith("optimizer state kept as it is")
    assert f"'{op}' would change the axes" in note or "does not fit" in note


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
    kept = convert(states, Rule("layers", "x_{j}", "stack 1; merge 1"))
    assert set(read(kept)) == {f"state/opt_states_raw/0/{name}" for name in states}
    assert "'stack 1; merge 1' would change the axes" in kept.notes[0]


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


# States that are kept unchanged.


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
