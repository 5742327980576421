"""A conversion stays within its memory limit, however large a leaf is, and writes it correctly."""

import hashlib
import json
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import zstandard

from converters import ConvertOptions, PlanOptions, convert
from tests.converters import stored, synthetic

MEMORY = 16 << 20
SPARE = 200 << 20  # additional memory for the program itself
LAYERS, ROWS, COLUMNS = 4, 4096, 4096
BLOCK = 256  # rows that are made at a time

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def blocks() -> list[np.ndarray]:
    """The rows of one layer, block after block; layer n has these values times n."""
    generator = np.random.default_rng(0)
    noise = generator.standard_normal((BLOCK, COLUMNS), np.float32)
    return [noise + np.float32(start) for start in range(0, ROWS, BLOCK)]


@pytest.fixture(scope="module")
def step(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with one weight, [L, R, C] float32 of 268 MB, in a single zstd chunk."""
    leaves = {
        "step": np.array(7, np.uint32),
        "mdl_vars/params/layers/w": np.zeros((LAYERS, 1, 1), np.float32),
    }
    step = tmp_path_factory.mktemp("large") / "checkpoint_00000007"
    synthetic.write_step(step, leaves)
    place = step / "state" / "mdl_vars.params.layers.w"
    shape = [LAYERS, ROWS, COLUMNS]
    about = json.loads((place / ".zarray").read_text())
    (place / ".zarray").write_text(json.dumps(about | {"shape": shape, "chunks": shape}))
    metadata = step / "metadata" / "metadata"
    metadata.write_text(metadata.read_text().replace("[4, 1, 1]", str(shape)))
    size = 4 * LAYERS * ROWS * COLUMNS
    compressor = zstandard.ZstdCompressor(level=1)
    with (place / "0.0.0").open("wb") as file, compressor.stream_writer(file, size=size) as chunk:
        for layer in range(LAYERS):
            for block in blocks():
                chunk.write((block * np.float32(layer)).tobytes())
    return step


def digest(layers: range, dtype: type = np.float32) -> str:
    found = hashlib.sha256()
    for layer in layers:
        for block in blocks():
            found.update((block * np.float32(layer)).astype(dtype).tobytes())
    return found.hexdigest()


def test_the_leaf_is_larger_than_all_memory_that_is_allowed():
    assert 4 * LAYERS * ROWS * COLUMNS > MEMORY + SPARE


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("moved", []),
        ("safetensors", ["--to", "safetensors"]),
        ("cast", ["--dtype", "bfloat16"]),
        ("unstacked", ["--rules", "rules.toml"]),
    ],
)
def test_peak_memory(
    name: str, options: list[str], step: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Path("rules.toml").write_text(
        '[[rule]]\ntarget = "layers_{i}/w"\nsource = "layers/w"\nop = "unstack 0"\n'
    )
    peak = synthetic.peak_memory(
        step, tmp_path / "out", "--memory", str(MEMORY), "--quiet", *options
    )
    assert peak <= MEMORY + SPARE
    found = stored.digests(tmp_path / "out")
    del found["state/step"]
    every = range(LAYERS)
    wanted = {"params/layers/w": digest(every)}
    if name == "cast":
        wanted = {"params/layers/w": digest(every, ml_dtypes.bfloat16)}
    if name == "unstacked":
        wanted = {f"params/layers_{i}/w": digest(range(i, i + 1)) for i in every}
    assert found == wanted


@pytest.mark.parametrize(
    "compressor", [None, {"id": "gzip", "level": 1}, {"id": "zstd", "level": 1}]
)
@pytest.mark.parametrize("op", ["", "transpose 1 0", "merge 0", "split 0 100 20", "cast float16"])
def test_streamed_chunks_give_the_same_values(
    compressor: dict[str, object] | None, op: str, tmp_path: Path
):
    """A chunk is read as a stream while other chunks are decoded and written."""
    values = np.random.default_rng(0).standard_normal((2000, 150), np.float32)
    leaves = {"step": np.array(7, np.uint32), "mdl_vars/params/w": values}
    step = synthetic.write_step(tmp_path / "checkpoint_00000007", leaves, compressor=compressor)
    rules = tmp_path / "rules.toml"
    rules.write_text(f'[[rule]]\ntarget = "w"\nsource = "w"\nop = "{op}"\n')
    plan = PlanOptions(rules=str(rules))
    for memory in (1 << 20, 1 << 30):
        convert(step, tmp_path / str(memory), ConvertOptions(plan, memory=memory, workers=1))
    small, large = (stored.read_output(tmp_path / str(memory)) for memory in (1 << 20, 1 << 30))
    wanted = {
        "": values,
        "transpose 1 0": values.T,
        "merge 0": values.reshape(-1),
        "split 0 100 20": values.reshape(100, 20, 150),
        "cast float16": values.astype(np.float16),
    }[op]
    for output in (small, large):
        np.testing.assert_array_equal(output["params/w"], wanted)
        assert output["params/w"].dtype == wanted.dtype
