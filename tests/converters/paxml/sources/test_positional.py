import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.paxml.sources.positional import is_positional, name_positions

Shapes = dict[str, tuple[int, ...] | None]
FIELDS = {
    "schedule": ["count"],
    "adam": ["count", "m", "v"],
    "adafactor": ["count", "m", "m_scale", "vr", "vc", "v"],
    "ema": ["count", "ema"],
}


def chain(
    start: str, new: str, kinds: list[str], prefix: tuple[int, ...], mine: list[bool]
) -> tuple:
    """Positional shapes of one chain, and the expected names."""
    shapes: Shapes = {}
    names: dict[str, str] = {}
    for index, kind in enumerate(kinds):
        for place, field in enumerate(FIELDS[kind]):
            if field == "count":
                shapes[f"{start}/{index}/{place}"] = prefix
                names[f"{start}/{index}/{place}"] = f"{new}/{index}/count"
                continue
            for variable, here in enumerate(mine):
                tail = f"params/lm/w_{variable}"
                shapes[f"{start}/{index}/{place}/{tail}"] = (*prefix, 4) if here else None
                names[f"{start}/{index}/{place}/{tail}"] = f"{new}/{index}/{field}/{tail}"
    return shapes, names


CHAINS = st.lists(st.sampled_from(["schedule", "adam", "adafactor"]), min_size=2, max_size=4)


PREFIXES = st.lists(
    st.lists(st.integers(2, 9), min_size=1, max_size=2), max_size=3, unique_by=tuple
)


@given(CHAINS, st.booleans(), PREFIXES)
def test_names_come_back(kinds: list[str], ema: bool, prefixes: list[list[int]]) -> None:
    kinds += ["ema"] if ema else []
    keys = {"no_prefix": ()}
    keys |= {f"p#{'.'.join(map(str, p))}#{'.'.join(['i-1'] * len(p))}": tuple(p) for p in prefixes}
    shapes: Shapes = {}
    names: dict[str, str] = {}
    for place, key in enumerate(sorted(keys)):
        mine = [n == place for n in range(len(keys))]
        start, new = f"opt_states/0/{place}", f"opt_states/0/{key}"
        if len(keys) == 1:
            start = new = "opt_states/0"
        some, told = chain(start, new, kinds, keys[key], mine)
        shapes |= some
        names |= told
    assert is_positional(shapes)
    assert not is_positional(names.values())
    assert name_positions(shapes) == (names, [])


def test_two_learners() -> None:
    first, first_names = chain("opt_states/0", "opt_states/0", ["schedule", "adam"], (), [True])
    second, second_names = chain("opt_states/1", "opt_states/1", ["schedule", "ema"], (), [True])
    assert name_positions(first | second)[0] == first_names | second_names


def test_groups_of_the_same_shape_are_kept_apart() -> None:
    shapes: Shapes = {}
    for place, prefix in enumerate([(), (3,), (3,)]):
        some, _ = chain(f"opt_states/0/{place}", "", ["schedule", "adam"], prefix, [True])
        shapes |= some
    groups = {path.split("/")[2] for path in name_positions(shapes)[0].values()}
    assert groups == {"no_prefix", "p#3#i-1", "p#3#sgroup2"}


@pytest.mark.parametrize(
    ("shapes", "wanted"),
    [
        # Lion is not taken for an EMA, because another transform follows it.
        (
            {"opt_states/0/0/0": (), "opt_states/0/0/1/params/w": (4,), "opt_states/0/1/0": ()},
            "0/0/m",
        ),
        # A missing field does not shift the others.
        (
            {"opt_states/0/0/0": (), "opt_states/0/0/2/params/w": (4,), "opt_states/0/1/0": ()},
            "0/0/v",
        ),
        # A NamedTuple keeps its names.
        (
            {
                "opt_states/0/0/0": (),
                "opt_states/0/1/0/trace/params/w": (4,),
                "opt_states/0/1/1/count": (),
            },
            "0/1/0/trace",
        ),
    ],
)
def test_fields(shapes: Shapes, wanted: str) -> None:
    assert f"opt_states/{wanted}/params/w" in name_positions(shapes)[0].values()


def test_unknown_states_stay_numbered() -> None:
    shapes: Shapes = {f"opt_states/0/0/{i}": () for i in range(4)} | {"opt_states/0/1/0": ()}
    names, notes = name_positions(shapes)
    assert names["opt_states/0/0/3"] == "opt_states/0/0/3"
    assert notes == ["opt_states/0/0: a state of unknown kind; its fields are numbered"]
