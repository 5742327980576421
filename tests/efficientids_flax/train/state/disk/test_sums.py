"""Flipped bits inside of a checkpoint are found, named, and the checkpoint before goes on."""

import json
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efficientids_flax.sharding import batch_sharding, make_mesh
from efficientids_flax.train.state import Checkpoints, DamagedCheckpoint
from efficientids_flax.train.state.disk import sums
from efficientids_flax.train.state.disk.sums import differing, sums_of
from tests.efficientids_flax.train.networks import batches, begin, same, trainer

DTYPES = ("float32", "bfloat16", "float16", "int32", "uint32", "int8", "uint8", "bool")


def numbers(dtype: str, shape: tuple[int, ...] = (5, 7, 3)) -> np.ndarray:
    made = np.random.default_rng(0).integers(0, 200, shape)
    return np.asarray(made % 2 if dtype == "bool" else made).astype(jnp.dtype(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (5, 7, 3), (0, 3)])
def test_the_sum_is_the_same_on_the_host_and_on_a_device(dtype: str, shape: Any, monkeypatch: Any):
    monkeypatch.setattr(sums, "AT_ONCE", 8)  # in parts
    leaf = numbers(dtype, shape)
    there = jax.device_put(leaf, batch_sharding(make_mesh())) if shape == (5, 7, 3) else leaf
    found = sums_of({"host": leaf, "device": jnp.asarray(leaf), "mesh": jnp.asarray(there)})
    assert found["host"] == found["device"] == found["mesh"]


@pytest.mark.parametrize("dtype", [name for name in DTYPES if name != "bool"])
def test_each_flipped_bit_is_seen(dtype: str):
    leaf = numbers(dtype, (4, 3))
    wanted = sums_of({"x": leaf})
    for byte in range(leaf.nbytes):
        for bit in range(8):
            content = bytearray(leaf.tobytes())
            content[byte] ^= 1 << bit
            flipped = np.frombuffer(bytes(content), leaf.dtype).reshape(leaf.shape)
            assert sums_of({"x": flipped}) != wanted


def test_values_that_changed_places_are_seen_and_named():
    leaves = {name: numbers("float32") for name in ("a", "b", "c", "d", "e")}
    wanted = sums_of(leaves)
    assert differing(leaves, wanted) is None
    swapped = leaves["a"].copy()
    swapped[0, 0, :2] = swapped[0, 0, 1::-1]
    told = differing({**leaves, "a": swapped}, wanted)
    assert told == "a: not the numbers that were written"
    told = differing(dict.fromkeys(leaves, swapped), wanted)
    assert told == "a, b, c and 2 more: not the numbers that were written"
    assert differing({"f": swapped}, wanted) is None  # of an older release: not known


@pytest.fixture(scope="module")
def ended(tmp_path_factory: Any) -> Any:
    directory = tmp_path_factory.mktemp("ended")
    made = trainer(directory, save_every=2)
    made.train(begin(made), batches(), num_steps=4)
    whole = trainer()
    return directory, made, whole.train(begin(whole), batches(), num_steps=6)


def rewritten(step: Any, change: Any) -> None:
    """The state of a step with other numbers in files that are whole."""
    import orbax.checkpoint as ocp

    with ocp.PyTreeCheckpointer() as checkpointer:
        tree = checkpointer.restore(step / "state")
        change(tree)
        checkpointer.save(step / "state", tree, force=True)


@pytest.mark.filterwarnings("ignore:Sharding info not provided")
def test_other_numbers_are_said_and_the_checkpoint_before_goes_on(
    ended: Any, tmp_path: Any, caplog: Any
):
    directory, made, want = ended
    made.directory, made._cursor = shutil.copytree(directory, tmp_path / "run"), None

    def flip(tree: Any) -> None:
        kernel = np.array(tree["params"]["Dense_0"]["kernel"])
        kernel.view(np.uint32)[2, 3] ^= 1
        tree["params"]["Dense_0"]["kernel"] = kernel

    rewritten(made.directory / "4", flip)
    checkpoints = Checkpoints(made.directory, read_only=True)
    with pytest.raises(DamagedCheckpoint, match="params/Dense_0/kernel: not the numbers"):
        checkpoints.restore_params(4)
    checkpoints.close()
    assert same(made.train(begin(made), batches(), num_steps=6), want)
    assert "params/Dense_0/kernel: not the numbers that were written" in caplog.text
    assert "going back to the checkpoint of step 2" in caplog.text


def test_another_place_in_the_data_is_damage_too(ended: Any, tmp_path: Any, caplog: Any):
    directory, made, want = ended
    made.directory, made._cursor = shutil.copytree(directory, tmp_path / "run"), None
    place = made.directory / "4" / "run" / "metadata"
    run = json.loads(place.read_text())
    run["data"][0]["iterator"]["read"] += 1
    place.write_text(json.dumps(run))
    assert same(made.train(begin(made), batches(), num_steps=6), want)
    assert "its position in the run is not what was written" in caplog.text


def test_of_an_older_release_nothing_is_compared(ended: Any, tmp_path: Any):
    directory, made, want = ended
    made.directory, made._cursor = shutil.copytree(directory, tmp_path / "run"), None
    place = made.directory / "4" / "run" / "metadata"
    run = {key: value for key, value in json.loads(place.read_text()).items() if key not in
           ("sums", "sum")}  # fmt: skip
    place.write_text(json.dumps(run))
    assert same(made.train(begin(made), batches(), num_steps=6), want)
