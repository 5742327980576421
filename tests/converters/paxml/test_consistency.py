import numpy as np
import pytest

from converters.arrays.leaf import LeafSpec
from converters.paxml.consistency import check_states, check_variables, unmoved
from converters.paxml.metadata import Variable
from converters.paxml.state.moments import take_apart

Shape = tuple[int, ...]


def spec(path: str, shape: Shape, dtype: str = "float32") -> LeafSpec:
    return LeafSpec(path, shape, np.dtype(dtype), shape, path)


def problems(leaves: dict[str, tuple[Shape, str]]) -> list[str]:
    """Problems of the states among `leaves` (paths below `opt_states/0`), for variable w [3, 4]."""
    specs = {"mdl_vars/params/w": spec("mdl_vars/params/w", (3, 4))}
    for path, (shape, dtype) in leaves.items():
        specs[f"opt_states/0/{path}"] = spec(f"opt_states/0/{path}", shape, dtype)
    states = [take_apart(path, {"params"}) for path in specs if path.startswith("opt_states")]
    return check_states(states, specs, set(specs), None)


F32, I32 = "float32", "int32"
COUNT = {"2/count": ((), I32)}


@pytest.mark.parametrize(
    ("stored", "declared", "allowed"),
    [
        ("float32", "float32", True),
        ("float32", "bfloat16", True),  # a bf16 model that trains in float32
        ("bfloat16", "float32", True),
        ("float64", "float32", True),
        ("float16", "bfloat16", False),  # same size: the values would be misread
        ("int32", "float32", False),
        ("int8", "uint8", False),
        ("int8", "float32", False),
        ("float32", "int8", False),
        ("float8_e4m3fn", "int8", False),
        ("bfloat16", "float8_e4m3fn", True),
    ],
)
def test_dtype_against_the_metadata(stored: str, declared: str, allowed: bool) -> None:
    specs = {"mdl_vars/params/w": spec("mdl_vars/params/w", (3,), stored), "step": spec("step", ())}
    told = {"mdl_vars/params/w": Variable((3,), np.dtype(declared), False)}
    found = check_variables(specs, set(specs), told)
    assert len(found) == (0 if allowed else 1)
    assert all(f"has dtype {stored}, metadata/metadata says {declared}" in text for text in found)


@pytest.mark.parametrize("shape", [(3,), (3, 4, 1), (4, 4), (3, 5)])
def test_shape_against_the_metadata(shape: Shape) -> None:
    specs = {"mdl_vars/params/w": spec("mdl_vars/params/w", (3, 4)), "step": spec("step", ())}
    told = {"mdl_vars/params/w": Variable(shape, np.dtype("float32"), False)}
    (found,) = check_variables(specs, set(specs), told)
    assert f"has shape [3, 4], metadata/metadata says {list(shape)}" in found


@pytest.mark.parametrize(
    "leaves",
    [
        {"2/m/params/w": ((3, 4), F32), "2/v/params/w": ((3, 4), F32)} | COUNT,
        {"2/m/params/w": ((3, 4), "bfloat16"), "2/v/params/w": ((3, 4), F32)} | COUNT,
        {"2/0/trace/params/w": ((3, 4), F32)},
        {
            "2/m/params/w": ((3, 4), "int8"),
            "2/m_scale/params/w": ((4,), F32),
            "2/vr/params/w": ((3,), F32),
            "2/vc/params/w": ((4,), F32),
            "2/v/params/w": ((1,), F32),
        }
        | COUNT,
        {"p#3#i-1/0/count": ((3,), I32)},
        {"0/statistics/params/w": ((7, 7), F32)},
    ],
)
def test_states_that_fit(leaves: dict) -> None:
    assert problems(leaves) == []


@pytest.mark.parametrize(
    ("leaves", "text"),
    [
        ({"2/m/params/w": ((4, 3), F32)} | COUNT, "has shape [4, 3], expected [1] or [3, 4]"),
        ({"2/ema/params/w": ((3,), F32)} | COUNT, "has shape [3], expected [3, 4]"),
        ({"2/m/params/w": ((3, 4), F32)}, "2/count: no array, though opt_states/0/2 has moments"),
        ({"2/ema/params/w": ((3, 4), I32)} | COUNT, "has dtype int32, expected a floating"),
        ({"2/v/params/w": ((3, 4), "uint8")}, "has dtype uint8, expected a floating"),
        ({"2/v/params/x": ((3, 4), F32)}, "mdl_vars/params/x: no array, though opt_states/0/2/v"),
        ({"0/count": ((3,), I32)}, "has shape [3] int32, expected [] int32"),
        ({"0/count": ((), F32)}, "has shape [] float32, expected [] int32"),
        ({"p#3#i-1/0/count": ((4,), I32)}, "has shape [4] int32, expected [3] int32"),
        ({"2/vr/params/w": ((3,), F32)} | COUNT, "2: no m, m_scale, v, vc, which Adafactor has"),
        (
            {"no_prefix/0/count": ((), I32), "p#3#i-1/1/count": ((3,), I32)},
            "opt_states/0/no_prefix/1/count: no array, though another group of opt_states/0 has",
        ),
    ],
)
def test_states_that_do_not_fit(leaves: dict, text: str) -> None:
    found = "\n".join(problems(leaves))
    assert text in found


def test_variables_of_another_group() -> None:
    path = "opt_states/0/p#5#i-1/2/v/params/w"
    specs = {"mdl_vars/params/w": spec("mdl_vars/params/w", (3, 4)), path: spec(path, (3, 4))}
    (found,) = check_states([take_apart(path, {"params"})], specs, set(specs), None)
    assert "its group opt_states/0/p#5#i-1 holds variables of shape [5] + ..." in found


def test_frozen_variables() -> None:
    present = {"mdl_vars/params/a", "mdl_vars/params/b", "mdl_vars/non_trainable/c"}
    moment = take_apart("opt_states/0/2/m/params/a", {"params"})
    assert unmoved([moment], present) == ["mdl_vars/params/b"]
    assert unmoved([], present) == []
