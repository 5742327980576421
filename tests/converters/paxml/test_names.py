import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.errors import CheckpointError
from converters.paxml.names import from_name, group_shape, order, to_dotted_name, to_pax_name

# Name on disk, canonical path: as PAXml writes them, or by its grammar where no recording has it.
NAMES = [
    ("step", "step"),
    ("mdl_vars.params.lm.x_layers_0.w", "mdl_vars/params/lm/x_layers_0/w"),
    ("mdl_vars.non_trainable.moving_mean", "mdl_vars/non_trainable/moving_mean"),
    ("opt_states_0_2.count", "opt_states/0/2/count"),
    ("opt_states_0_2.m.params.lm.x_layers_10.w", "opt_states/0/2/m/params/lm/x_layers_10/w"),
    ("opt_states_1_12.m_scale.params.w", "opt_states/1/12/m_scale/params/w"),
    ("opt_states_0_2_0.trace.params.w_0", "opt_states/0/2/0/trace/params/w_0"),
    ("opt_states_0_2_1.count", "opt_states/0/2/1/count"),
    ("opt_states_0.no_prefix_4.ema.params.w", "opt_states/0/no_prefix/4/ema/params/w"),
    ("opt_states_0.no_prefix_2_0.trace.params.w", "opt_states/0/no_prefix/2/0/trace/params/w"),
    ("opt_states_0.p#3#i-1_2.m.params.x_0.w", "opt_states/0/p#3#i-1/2/m/params/x_0/w"),
    ("opt_states_0.p_3_i-1_2.m.params.w", "opt_states/0/p_3_i-1/2/m/params/w"),
    ("opt_states_0.p#2#sstage_2.v.params.w", "opt_states/0/p#2#sstage/2/v/params/w"),
    ("opt_states_0.p_2_sstage_2.v.params.w", "opt_states/0/p_2_sstage/2/v/params/w"),
    ("opt_states_0.p#2.3#i0.i-1_2.m.params.w", "opt_states/0/p#2.3#i0.i-1/2/m/params/w"),
    ("opt_states_0.p_2.3_i0.i-1_2.m.params.w", "opt_states/0/p_2.3_i0.i-1/2/m/params/w"),
    ("opt_states_0.p#2.3#sdata.smdl_0.count", "opt_states/0/p#2.3#sdata.smdl/0/count"),
    ("opt_states_0.p#2.3#tsdata,smdl._2.count", "opt_states/0/p#2.3#tsdata,smdl./2/count"),
    ("opt_states_0.p#4#_2.count", "opt_states/0/p#4#/2/count"),
    ("opt_states_0.p#4#i-1#i0_2.count", "opt_states/0/p#4#i-1#i0/2/count"),
    ("opt_states_0.p_4_i-1_sdata_2.count", "opt_states/0/p_4_i-1_sdata/2/count"),
    ("opt_states_0_1.inner_state_0.count", "opt_states/0/1/inner_state/0/count"),
    ("opt_states_0.base_state_2.m.params.w", "opt_states/0/base_state/2/m/params/w"),
    ("opt_states_0.no_prefix.base_2.m.params.w", "opt_states/0/no_prefix/base/2/m/params/w"),
    ("extra_state_0.ratio", "extra_state/0/ratio"),
]


@pytest.mark.parametrize(("name", "path"), NAMES)
def test_pax_names(name: str, path: str) -> None:
    assert from_name(name) == path
    assert to_pax_name(path) == name


@pytest.mark.parametrize("path", [path for _, path in NAMES])
def test_dotted_names(path: str) -> None:
    assert from_name(to_dotted_name(path)) == path


def test_other_collections_end_the_indices() -> None:
    name = "opt_states_0_2.m.adapters.layer_0.w"
    assert from_name(name, {"params", "adapters"}) == "opt_states/0/2/m/adapters/layer_0/w"


def test_keys_with_dots_are_known_from_the_metadata() -> None:
    known = {"mdl_vars.params.conv.1x1.w": "mdl_vars/params/conv.1x1/w"}
    assert from_name("mdl_vars.params.conv.1x1.w", variables=known) == "mdl_vars/params/conv.1x1/w"
    moment = from_name("opt_states_0.no_prefix_2.m.params.conv.1x1.w", variables=known)
    assert moment == "opt_states/0/no_prefix/2/m/params/conv.1x1/w"


@pytest.mark.parametrize("name", ["params.w", "opt_stateful", "mdl_varsx.w", "stepper", ""])
def test_names_of_something_else(name: str) -> None:
    with pytest.raises(CheckpointError, match="not a name of a TrainState leaf"):
        from_name(name)


@pytest.mark.parametrize(
    "name", ["mdl_vars..evil", "mdl_vars.a/b", "opt_states_0.m.params...", "mdl_vars."]
)
def test_unsafe_names(name: str) -> None:
    with pytest.raises(CheckpointError, match=f"{re.escape(name)}: refused"):
        from_name(name)


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("no_prefix", ()),
        ("p#3#i-1", (3,)),
        ("p_24_i-1", (24,)),
        ("p#2.3#i0.i-1", (2, 3)),
        ("p#2#sstage", (2,)),
        ("p#4#i-1#i0", (4,)),
        ("params", None),
        ("p#x#i-1", None),
        ("p#3#i-1x", None),
        ("0", None),
    ],
)
def test_shape_of_a_group(key: str, shape: tuple[int, ...] | None) -> None:
    assert group_shape(key) == shape


def test_order_is_by_number() -> None:
    paths = [
        "step",
        "mdl_vars/non_trainable/mean",
        "mdl_vars/params/w",
        "opt_states/0/2/count",
        "opt_states/0/10/count",
        "opt_states/1/0/count",
        "extra_state/0",
    ]
    assert sorted(set(paths), key=order) == paths


INDEX = st.integers(0, 30).map(str)
KEY = st.from_regex(r"[a-z]+(_[a-z]+)*(_[0-9]+)?", fullmatch=True).filter(
    lambda key: key not in ("params", "no_prefix")
)
FIELD = st.sampled_from(["count", "m", "v", "m_scale", "vr", "vc", "ema", "trace"])
AXIS = st.one_of(
    st.integers(-1, 9).map(lambda n: f"i{n}"),
    st.sampled_from(["sdata", "smdl", "sstage", "", "tsdata,smdl", "ti-1,sdata"]),
)


@st.composite
def groups(draw: st.DrawFn) -> str:
    separator = draw(st.sampled_from("#_"))
    shape = draw(st.lists(st.integers(1, 200), min_size=1, max_size=3))
    parts = [".".join(map(str, shape))]
    for _ in range(draw(st.integers(1, 2))):
        parts.append(".".join(draw(AXIS) for _ in shape))
    return separator.join(["p", *parts])


@st.composite
def paths(draw: st.DrawFn) -> str:
    """Paths as `TrainState`s have them."""
    variable = ["params", *draw(st.lists(KEY, min_size=1, max_size=5))]
    if draw(st.booleans()):
        return "/".join(["mdl_vars", *variable])
    keys = ["opt_states", draw(INDEX)]
    group = draw(st.none() | st.just("no_prefix") | groups())
    keys += [group] if group else []
    keys += draw(st.lists(INDEX, min_size=1, max_size=3))
    keys.append(draw(FIELD))
    return "/".join(keys + (variable if keys[-1] != "count" else []))


@given(paths())
def test_names_round_trip(path: str) -> None:
    assert from_name(to_dotted_name(path)) == path
    assert from_name(to_pax_name(path)) == path


@given(st.text(max_size=60))
def test_any_text_is_a_safe_path_or_an_error(name: str) -> None:
    try:
        path = from_name(name)
    except CheckpointError:
        return
    assert path.split("/")[0] in ("step", "mdl_vars", "opt_states", "extra_state")
    assert not {"", ".", ".."} & set(path.split("/"))
