"""Any rule table that passes the check converts to the same values as NumPy."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import ml_dtypes  # noqa: F401  (bfloat16 for np.dtype)
import numpy as np
import tensorstore as ts
from hypothesis import given
from hypothesis import strategies as st

from converters.errors import MappingError
from converters.plan.leaves import planned
from converters.rules.apply import RuledTree
from converters.rules.language import Rule, fill
from converters.stores.local import LocalStore
from converters.write.formats.orbax import OrbaxSink
from converters.write.jobs import Settings, do_job, make_jobs
from tests.converters.rules.rule_tables import Values, apply, assert_equal
from tests.leaves import FEW, values_of


def stepped(name: str, arguments: Sequence[str], values: np.ndarray) -> np.ndarray:
    """An operation, computed by NumPy."""
    if name == "cast":
        return values.astype(arguments[0])
    numbers = [int(argument) for argument in arguments]
    if name == "transpose":
        return values.transpose(numbers)
    axis, shape = numbers[0], values.shape
    if name == "merge":
        return values.reshape(*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :])
    return values.reshape(*shape[:axis], *numbers[1:], *shape[axis + 1 :])


@st.composite
def steps(draw: st.DrawFn, values: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Up to three operations that fit each other, and values with the shape of their result."""
    found: list[str] = []
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(["transpose", "merge", "split"]))
        step = ""
        if kind == "transpose":
            step = " ".join(["transpose", *map(str, draw(st.permutations(range(values.ndim))))])
        elif kind == "merge" and values.ndim > 1:
            step = f"merge {draw(st.integers(0, values.ndim - 2))}"
        elif kind == "split" and 0 < values.ndim < 4:
            axis = draw(st.integers(0, values.ndim - 1))
            size = values.shape[axis]
            outer = draw(st.sampled_from([n for n in range(1, size + 1) if size % n == 0]))
            step = f"split {axis} {outer} {size // outer}"
        if step:
            found.append(step)
            name, *arguments = step.split()
            values = stepped(name, arguments, values)
    return found, values


@st.composite
def tables(draw: st.DrawFn) -> tuple[Values, list[Rule], Values]:
    """A random tree, a table that fits it, and the expected result from NumPy."""
    tree: Values = {}
    rules: list[Rule] = []
    wanted: Values = {}
    for number in range(draw(st.integers(1, 4))):
        shape = draw(st.lists(st.integers(1, 6), max_size=3))
        dtype = draw(st.sampled_from(["float32", "int8", "bfloat16"]))
        hole, words = draw(
            st.sampled_from([("{i}", ["0", "1", "2"]), ("{q|k|v}", list("qkv")), ("{i}", ["0"])])
        )
        kind = draw(st.sampled_from(["rename", "stack", "join", "unstack", "part"]))
        many = kind in ("rename", "stack", "join")
        source, target = f"s{number}/{hole if many else ''}x", f"t{number}/y{hole}"
        target = f"t{number}/y" if kind in ("stack", "join") else target
        paths = [fill(source, {hole[1:-1]: word}) for word in words] if many else [source]
        for path in paths:
            tree[path] = values_of(shape, dtype, len(tree))
        before, shaped = draw(steps(tree[paths[0]]))
        each = [evaluated(before, tree[path]) for path in paths]
        middle: list[str] = []
        names = [fill(target, {hole[1:-1]: word}) for word in words]
        if kind == "stack" or (kind == "join" and shaped.ndim):
            axis = draw(st.integers(0, shaped.ndim - (kind == "join")))
            middle = [f"{kind} {axis}"]
            each = [np.stack(each, axis) if kind == "stack" else np.concatenate(each, axis)]
            names = [target]
        elif kind == "join":
            middle, each, names = ["stack 0"], [np.stack(each)], [target]
        elif kind in ("unstack", "part"):
            # The axis is put in front of all others by the leaf itself.
            sizes = len(words) * (1 if kind == "unstack" else draw(st.integers(1, 3)))
            part_of_numbers = kind == "part" and hole == "{i}"
            kind = "unstack" if part_of_numbers else kind
            sizes = len(words) if kind == "unstack" else sizes
            tree[source] = values_of((sizes, *shape), dtype, len(tree))
            before, each = [], list(np.split(tree[source], len(words)))
            each = [part[0] if kind == "unstack" else part for part in each]
            middle = [f"{kind} 0"]
        after, _ = draw(steps(each[0]))
        if draw(st.booleans()):
            after.append(f"cast {draw(st.sampled_from(['float32', 'bfloat16', 'float64']))}")
        rules.append(Rule(target, source, "; ".join([*before, *middle, *after])))
        wanted |= dict(zip(names, (evaluated(after, part) for part in each), strict=True))
    return tree, rules, wanted


def evaluated(operations: Sequence[str], values: np.ndarray) -> np.ndarray:
    for operation in operations:
        name, *arguments = operation.split()
        values = stepped(name, arguments, values)
    return values


def written(found: RuledTree, limit: int) -> Values:
    """Write all targets with a real sink, and read them with TensorStore."""
    with tempfile.TemporaryDirectory() as folder:
        sink = OrbaxSink(LocalStore(Path(folder)))
        for job in make_jobs(planned(found.leaves, "params/")):
            do_job(job, sink, Settings(limit, "full"), lambda nbytes: None)
        values: Values = {}
        for place in Path(folder, "params").iterdir():
            kvstore = {"driver": "file", "path": f"{place}/"}
            array = ts.open({"driver": "zarr", "kvstore": kvstore}, read=True).result()
            values[place.name.replace(".", "/")] = array.read().result()
        return values


@given(table=tables(), limit=st.integers(8, 500))
@FEW
def test_any_table_that_fits_converts_to_what_numpy_says(
    table: tuple[Values, list[Rule], Values], limit: int
):
    values, rules, wanted = table
    assert_equal(written(apply(values, *rules), limit), wanted)


paths = st.sampled_from(["a", "a/0", "a/1", "b/0/w", "b/1/w", "b/q", "b/k", "c"])
patterns = st.sampled_from(
    ["a", "a/{i}", "b/{i}/w", "b/{q|k}", "c", "{all*}", "t", "t/{i}", "t/{q|k}", "t/{all*}", "a/{x"]
)
numbers = st.integers(0, 3).map(str)
operations = st.lists(
    st.tuples(
        st.sampled_from(
            ["transpose", "merge", "split", "stack", "unstack", "join", "part", "cast", "turn"]
        ),
        st.lists(numbers | st.sampled_from(["bfloat16", "int8"]), max_size=3),
    ).map(lambda step: " ".join([step[0], *step[1]])),
    max_size=2,
).map("; ".join)


@given(
    shapes=st.dictionaries(paths, st.lists(st.integers(0, 3), max_size=3), min_size=1),
    rules=st.lists(st.builds(Rule, patterns, patterns, operations), min_size=1, max_size=4),
)
@FEW
def test_a_table_is_refused_or_converts(shapes: dict[str, list[int]], rules: list[Rule]):
    values = {path: values_of(shape, "int8") for path, shape in shapes.items()}
    try:
        found = apply(values, *rules)
    except MappingError:
        return
    assert set(written(found, 16)) == {leaf.target for leaf in found.leaves}
