"""Values in memory equal those in the files, whichever way they are read."""

import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from converters.arrays.flat import FlatLeaf
from converters.arrays.lazy import Array, Source
from converters.arrays.leaf import LeafSpec
from converters.arrays.structure import Joined, Merged, Part, Split, Transposed
from converters.arrays.values import Cast
from converters.errors import CheckpointError
from converters.huggingface import in_memory, open_pretrained, plan_pretrained
from converters.stores.local import LocalStore
from tests.converters.huggingface.recorded_models import FOLDERS
from tests.leaves import FEW, regions, values_of

SHAPE = (4, 6, 5)


def stored(folder: Path, seed: int, segments: int = 1) -> tuple[Array, np.ndarray]:
    """A leaf with other bytes before it in the file."""
    values = values_of(SHAPE, "bfloat16", seed)
    data, name = values.tobytes(), f"file{seed}"
    (folder / name).write_bytes(b"before" + data + b"after")
    cut = len(data) // segments
    places = tuple((6 + i * cut, cut) for i in range(segments))
    spec = LeafSpec(name, SHAPE, values.dtype, SHAPE, name)
    return Source(FlatLeaf(spec, LocalStore(folder), name, places)), values


# Operations that the families' tables use, and others: name -> (array, values).
CASES = {
    "as it is": lambda a, v, b, w: (a, v),
    "split": lambda a, v, b, w: (Split(a, 1, (2, 3)), v.reshape(4, 2, 3, 5)),
    "merged": lambda a, v, b, w: (Merged(a, 1), v.reshape(4, 30)),
    "turned": lambda a, v, b, w: (Transposed(a, (2, 0, 1)), v.transpose(2, 0, 1)),
    "rows": lambda a, v, b, w: (Split(Part(a, 0, 1, 3), 1, (3, 2)), v[1:3].reshape(2, 3, 2, 5)),
    "one row": lambda a, v, b, w: (Part(Part(a, 0, 2, 3), 1, 1, 4), v[2:3, 1:4]),
    "columns": lambda a, v, b, w: (Part(a, 1, 1, 4), v[:, 1:4]),
    "stacked": lambda a, v, b, w: (Joined((a, b), 0, True), np.stack([v, w])),
    "stacked behind": lambda a, v, b, w: (Joined((a, b), 2, True), np.stack([v, w], 2)),
    "joined": lambda a, v, b, w: (Joined((a, b, a), 0), np.concatenate([v, w, v])),
    "parts joined": lambda a, v, b, w: (
        Joined((Part(b, 0, 1, 2), a), 0), np.concatenate([w[1:2], v])
    ),
    "joined columns": lambda a, v, b, w: (Joined((a, b), 1), np.concatenate([v, w], 1)),
    "cast": lambda a, v, b, w: (Cast(Split(a, 0, (2, 2)), np.dtype(np.float32)),
                                v.reshape(2, 2, 6, 5).astype(np.float32)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("segments", [1, 2])
@given(data=st.data())
@FEW
def test_any_region_of_what_the_tables_make(case: str, segments: int, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        one, two = stored(Path(folder), 0, segments), stored(Path(folder), 1, segments)
        array, wanted = CASES[case](*one, *two)
        for region in (None, data.draw(regions(wanted.shape)), data.draw(regions(wanted.shape))):
            found = in_memory.values_of(array, region)
            part = wanted if region is None else wanted[region]
            assert (found.dtype, found.shape) == (part.dtype, part.shape)
            assert found.tobytes() == part.tobytes()
            assert found.ctypes.data % 64 == 0  # or JAX would copy it


def test_what_lies_as_it_is_wanted_is_copied_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The system reads it directly into place; no tiles are used."""
    monkeypatch.setattr(in_memory, "_fill_by_tiles", None)
    array, values = stored(tmp_path, 0)
    other, others = stored(tmp_path, 1)
    layers = Joined((Split(array, 0, (2, 2)), Split(other, 0, (2, 2))), 0, True)
    found = in_memory.values_of(
        layers, (slice(0, 2), slice(1, 2), *map(slice, (0,) * 3, (2, 6, 5)))
    )
    wanted = np.stack([values, others]).reshape(2, 2, 2, 6, 5)[:, 1:2]
    assert found.tobytes() == wanted.tobytes()


DTYPES = [np.dtype(name) for name in ("float32", "float16", "float64", "int8")]
DTYPES.append(np.dtype(ml_dtypes.bfloat16))


@settings(max_examples=30, deadline=None)
@given(
    shape=hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=7),
    order=st.randoms(use_true_random=False),
    dtype=st.sampled_from(DTYPES),
    to=st.sampled_from([np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16)]),
    cast=st.booleans(),
    bits=st.integers(0, 2**32 - 1),
)
def test_values_are_put_in_place_bit_for_bit(shape, order, dtype, to, cast, bits) -> None:
    axes = list(range(len(shape)))
    order.shuffle(axes)
    stored = np.random.default_rng(bits).bytes(int(np.prod(shape)) * dtype.itemsize)
    values = np.frombuffer(stored, dtype).reshape(shape).transpose(axes)
    with np.errstate(all="ignore"):
        wanted = values.astype(to if cast else dtype)
    room = np.zeros((*values.shape, 3), wanted.dtype)
    in_memory.put(room[..., 1], values)
    assert np.ascontiguousarray(room[..., 1]).tobytes() == wanted.tobytes(order="C")
    assert not room[..., ::2].any()


def test_a_file_that_is_cut_off_while_it_is_read(tmp_path: Path) -> None:
    for file in (FOLDERS / "mistral").glob("*.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    _, plan = plan_pretrained(open_pretrained(tmp_path))
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"stops before byte \d+\. Copy it again"):
        for leaf in plan.leaves:
            in_memory.values_of(leaf.array)
