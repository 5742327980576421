"""One parameter out of a checkpoint, in both of its formats."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from etils import epath
from safetensors.numpy import save_file

from efficientids_flax.stored import read_parameter
from efficientids_flax.stored.items import write_item

TREE = {
    "item_embedding": {"kernel": np.arange(12, dtype=np.float32).reshape(3, 4)},
    "other": {"kernel": np.ones(3, ml_dtypes.bfloat16)},
}


@pytest.fixture(params=["orbax", "safetensors"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "orbax":
        write_item(epath.Path(tmp_path), "params", TREE)
    else:
        leaves = {f"{name}/kernel": leaf["kernel"] for name, leaf in TREE.items()}
        save_file(leaves, tmp_path / "params.safetensors")
    return tmp_path


def test_it_is_as_it_is_stored(stored: Path):
    for name, leaf in TREE.items():
        found = read_parameter(stored, f"{name}/kernel")
        assert found.dtype == leaf["kernel"].dtype
        np.testing.assert_array_equal(found, leaf["kernel"])


def test_what_is_not_there_is_named(stored: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="has no parameter cluster_embedding/kernel"):
        read_parameter(stored, "cluster_embedding/kernel")
    with pytest.raises(FileNotFoundError, match=r"neither params/ nor params\.safetensors"):
        read_parameter(tmp_path / "absent", "item_embedding/kernel")
