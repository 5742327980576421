"""Random states, written in each layout with TensorStore and msgpack, come back as they were."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.paxml.checkpoint import open_checkpoint
from converters.paxml.names import order, to_dotted_name, to_pax_name
from tests import paxml_states as states

DTYPES = ("float32", "bfloat16", "float64", "float16", "int8", "uint32", "bool")
FLOATS = DTYPES[:4]
KEY = st.from_regex(r"[a-z]{1,6}(_[a-z]{1,4})?(_[0-9]{1,2})?", fullmatch=True).filter(
    lambda key: key not in ("params", "no_prefix", "step")
)
SHAPE = st.lists(st.integers(1, 5), max_size=3).map(tuple)
COMPRESSORS = st.sampled_from(
    [states.ZSTD, None, {"id": "gzip", "level": 1}, {"id": "zlib", "level": 1}]
)


def filled(shape: tuple[int, ...], dtype: str, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**7, shape).astype(dtype)


@st.composite
def train_states(draw: st.DrawFn) -> dict[str, np.ndarray]:
    """Step, variables of any dtype, and perhaps Adam and EMA states, grouped by a stacked axis."""
    seed = draw(st.integers(0, 2**20))
    arrays = {"step": np.array(draw(st.integers(0, 2**31)), np.uint32)}
    paths = draw(st.lists(st.lists(KEY, min_size=1, max_size=3).map(tuple), min_size=1, max_size=5,
                          unique=True))  # fmt: skip
    paths = [p for p in paths if not any(q != p and q[: len(p)] == p for q in paths)]
    stacked = draw(st.sampled_from([0, 3]))
    groups: dict[str, list[str]] = (
        {"no_prefix": [], f"p#{stacked}#i-1": []} if stacked else {"": []}
    )
    for number, keys in enumerate(paths):
        collection = draw(st.sampled_from(["params", "params", "non_trainable"]))
        dtype = draw(st.sampled_from(DTYPES))
        group = draw(st.sampled_from(sorted(groups)))
        shape = draw(SHAPE)
        if group.startswith("p#"):
            shape = (stacked, *shape)
        path = "/".join([collection, *keys])
        arrays[f"mdl_vars/{path}"] = filled(shape, dtype, seed + number)
        if collection == "params" and dtype in FLOATS:
            groups[group].append(path)
    for group, members in groups.items() if draw(st.booleans()) else ():
        start = f"opt_states/0/{group}".rstrip("/")
        prefix = (stacked,) if group.startswith("p#") else ()
        for index in (0, 2, 4):
            arrays[f"{start}/{index}/count"] = np.full(prefix, 7, np.int32)
        for index, field in ((2, "m"), (2, "v"), (4, "ema")):
            for path in members:
                like = arrays[f"mdl_vars/{path}"]
                arrays[f"{start}/{index}/{field}/{path}"] = filled(
                    like.shape, "float32", seed + index
                )
    return dict(sorted(arrays.items(), key=lambda item: order(item[0])))


Write = Callable[[Path, dict[str, np.ndarray], object], None]


def zarr_00(step: Path, arrays: dict[str, np.ndarray], compressor: object) -> None:
    states.write_zarr(step, arrays, compressor=compressor)


def zarr_10(step: Path, arrays: dict[str, np.ndarray], compressor: object) -> None:
    separator_ = {path.replace("#", "_"): values for path, values in arrays.items()}
    states.write_zarr(step / "state", separator_, to_pax_name, compressor)
    states.write_metadata(step, 1.0)


def zarr_11_dotted(step: Path, arrays: dict[str, np.ndarray], compressor: object) -> None:
    states.write_zarr(step / "state", arrays, to_dotted_name, compressor)
    states.write_metadata(step, 1.1)


def zarr_11(step: Path, arrays: dict[str, np.ndarray], compressor: object) -> None:
    states.write_zarr(step / "state", arrays, to_pax_name, compressor)
    states.write_metadata(step, 1.1, arrays)


def zarr3(step: Path, arrays: dict[str, np.ndarray], compressor: object) -> None:
    del compressor
    states.write_zarr(step / "state", arrays, compressor="zarr3")
    states.write_metadata(step, 1.1, arrays)


def ocdbt(step: Path, arrays: dict[str, np.ndarray], compressor: object) -> None:
    states.write_ocdbt(step / "state", arrays, compressor)
    states.write_metadata(step, 1.2, arrays)


def ocdbt_bare(step: Path, arrays: dict[str, np.ndarray], compressor: object) -> None:
    states.write_ocdbt(step / "state", arrays, compressor, tree=False)


def flax(step: Path, arrays: dict[str, np.ndarray], compressor: object) -> None:
    del compressor
    tree: dict = {}
    for path, values in arrays.items():
        node = tree
        keys = path.split("/")
        for key in keys[:-1]:
            node = node.setdefault(key, {})
        node[keys[-1]] = values
    leaves: list[np.ndarray] = []

    def text(node: dict | np.ndarray) -> str:
        if not isinstance(node, dict):
            leaves.append(node)
            return "*"
        return "{" + ", ".join(f"{key!r}: {text(child)}" for key, child in node.items()) + "}"

    fields = [text(tree.get(name, {})) for name in ("step", "mdl_vars", "opt_states")]
    treedef = f"PyTreeDef(CustomNode(TrainState[()], [{', '.join(fields)}, ()]))"
    states.write_flax(step / "state" / "checkpoint", [states.packed(v) for v in leaves], treedef)
    states.write_metadata(step, 1.1, arrays)


@pytest.mark.parametrize(
    "write", [zarr_00, zarr_10, zarr_11_dotted, zarr_11, zarr3, ocdbt, ocdbt_bare, flax]
)
@settings(max_examples=12, deadline=None)
@given(arrays=train_states(), compressor=COMPRESSORS)
def test_random_states(write: Write, arrays: dict[str, np.ndarray], compressor: object) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        write(folder / "checkpoint_00000007", arrays, compressor)
        checkpoint = open_checkpoint(folder)
        if write is zarr_10:
            arrays = {path.replace("#", "_"): values for path, values in arrays.items()}
        assert sorted(checkpoint.leaves) == sorted(arrays)
        for path, values in arrays.items():
            found = checkpoint.leaves[path].read()
            assert found.dtype == values.dtype
            assert found.tobytes() == values.tobytes(), path
        assert checkpoint.step == int(arrays["step"])
    finally:
        shutil.rmtree(folder)
