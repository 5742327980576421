import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.paxml.state.moments import StateLeaf, expected_shapes, take_apart, unpadded_shape

Shape = tuple[int, ...]


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        (
            "opt_states/0/2/m/params/lm/w",
            ("opt_states/0/2", "m", "mdl_vars/params/lm/w", (), "opt_states/0"),
        ),
        ("opt_states/0/2/count", ("opt_states/0/2", "count", None, (), "opt_states/0")),
        (
            "opt_states/0/p#2.3#i0.i-1/2/vr/params/w",
            (
                "opt_states/0/p#2.3#i0.i-1/2",
                "vr",
                "mdl_vars/params/w",
                (2, 3),
                "opt_states/0/p#2.3#i0.i-1",
            ),
        ),
        (
            "opt_states/1/no_prefix/2/0/trace/params/w",
            (
                "opt_states/1/no_prefix/2/0",
                "trace",
                "mdl_vars/params/w",
                (),
                "opt_states/1/no_prefix",
            ),
        ),
    ],
)
def test_take_apart(path: str, wanted: tuple) -> None:
    assert take_apart(path, {"params"}) == StateLeaf(path, *wanted)


@pytest.mark.parametrize(
    ("field", "stored", "variable", "unpadded", "rank", "wanted"),
    [
        ("m", (32, 92), (32, 92), (32, 90), 0, (32, 90)),
        ("ema", (3, 32, 92), (3, 32, 92), (3, 32, 90), 1, (3, 32, 90)),
        ("v", (1,), (32, 92), (32, 90), 0, (1,)),  # unused slot of Adafactor
        ("v", (3, 1), (3, 32, 92), (3, 32, 90), 1, (3, 1)),
        ("m_scale", (92,), (32, 92), (32, 90), 0, (90,)),
        ("m_scale", (32,), (92, 32), (90, 32), 0, (32,)),
        ("m_scale", (), (92,), (90,), 0, ()),
        ("m_scale", (3,), (3, 92), (3, 90), 1, (3,)),
        ("vr", (32,), (32, 92), (32, 90), 0, (32,)),  # without the last, largest axis
        ("vc", (92,), (32, 92), (32, 90), 0, (90,)),
        ("vr", (3, 32), (3, 32, 92), (3, 32, 90), 1, (3, 32)),
        ("vc", (3, 92), (3, 32, 92), (3, 32, 90), 1, (3, 90)),
        ("vr", (1,), (92,), (90,), 0, (1,)),
        ("vr", (1,), (32, 8, 92), (32, 8, 90), 0, (1,)),
        # Padded to a square: the last axis is the largest one too, so both rules agree.
        ("vr", (92,), (92, 92), (90, 92), 0, (90,)),
        ("vc", (92,), (92, 92), (90, 92), 0, (92,)),
        # The largest axis is not the last one, and both rules fit: nothing on disk says which.
        ("vr", (92,), (92, 92), (92, 90), 0, None),
        ("v", (32, 96), (32, 92), (32, 90), 0, (32, 90)),  # padded by a spec of its own
        ("var_weights", (), (32, 92), (32, 90), 0, ()),
        ("statistics", (7, 7), (32, 92), (32, 90), 0, None),
        ("statistics", (7, 7), (32, 92), (32, 92), 0, (7, 7)),  # no padding, no question
    ],
)
def test_unpadded_shape(
    field: str, stored: Shape, variable: Shape, unpadded: Shape, rank: int, wanted: Shape | None
) -> None:
    assert unpadded_shape(field, stored, variable, unpadded, rank) == wanted


def adafactor(shape: Shape, rank: int, factored: bool, largest: bool) -> dict[str, Shape]:
    """Shapes that `_ShardedAdafactorHelper.init` makes, below `rank` stacked axes."""
    lead, inner = shape[:rank], shape[rank:]
    if largest:
        rows, columns = sorted(range(len(inner)), key=lambda axis: -inner[axis])[:2] + [0] * (
            2 - min(len(inner), 2)
        )
    else:
        rows, columns = len(inner) - 1, len(inner) - 2
    drop = lambda axis: lead + inner[:axis] + inner[axis + 1 :]  # noqa: E731
    if not factored or len(inner) < 2:
        return {"v": shape, "vr": (*lead, 1), "vc": (*lead, 1)}
    return {"v": (*lead, 1), "vr": drop(rows), "vc": drop(columns)}


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.lists(st.integers(0, 3), min_size=4, max_size=4),
    st.integers(0, 1),
    st.booleans(),
    st.booleans(),
)
def test_adafactor_slots_are_right_or_left_alone(
    sizes: list[int], padding: list[int], rank: int, factored: bool, largest: bool
) -> None:
    """Unpadding the slots of a padded variable gives those of the unpadded one, or None."""
    unpadded = tuple(sizes)
    rank = min(rank, len(unpadded) - 1)
    variable = tuple(
        size + (extra if axis >= rank else 0)
        for axis, (size, extra) in enumerate(zip(sizes, padding, strict=False))
    )
    wanted = adafactor(unpadded, rank, factored, largest)
    inner = range(rank, len(unpadded))
    axes = sorted(inner, key=lambda axis: -unpadded[axis]) if largest else list(inner)[::-1]
    for place, field in enumerate(("vr", "vc")):
        stored = wanted[field]
        if factored and len(unpadded) - rank >= 2:
            stored = tuple(n for axis, n in enumerate(variable) if axis != axes[place])
        found = unpadded_shape(field, stored, variable, unpadded, rank)
        assert found in (wanted[field], None)
        assert stored in expected_shapes(field, variable, rank)
    stored = variable if wanted["v"] == unpadded else wanted["v"]
    if stored != variable or variable != (*variable[:rank], 1):
        assert unpadded_shape("v", stored, variable, unpadded, rank) == wanted["v"]


def test_no_shape_is_expected_of_unknown_fields() -> None:
    for field, rank in itertools.product(("statistics", "count"), (0, 1)):
        assert expected_shapes(field, (3, 4), rank) == {}
