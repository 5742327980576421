import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.errors import CheckpointError
from converters.paxml.metadata import Metadata, read_metadata
from converters.paxml.sources.listing import Listing
from converters.stores.local import LocalStore


def read(tmp_path: Path, found: Any) -> Metadata:
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "metadata").write_text(json.dumps(found))
    return read_metadata(Listing(LocalStore(tmp_path)))


def described(shape: Any = (2, 3), dtype: str = "float32", masked: bool = False) -> dict[str, Any]:
    return {
        "_array_metadata_tag": True,
        "is_optax_masked_node": masked,
        "unpadded_shape": list(shape),
        "dtype": dtype,
    }


def test_none(tmp_path: Path) -> None:
    found = read_metadata(Listing(LocalStore(tmp_path)))
    assert (found.version, found.present, found.variables) == ("0.0", False, None)


@pytest.mark.parametrize(
    ("number", "version"), [(1, "1.0"), (1.0, "1.0"), (1.1, "1.1"), (1.2, "1.2")]
)
def test_version_alone(number: float, version: str, tmp_path: Path) -> None:
    found = read(tmp_path, {"version": number})
    assert (found.version, found.present, found.variables) == (version, True, None)


@pytest.mark.parametrize("number", [9.0, 1.3, 2, -1])
def test_unknown_version(number: float, tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=f"metadata/metadata: checkpoint version {number} is not"
    ):
        read(tmp_path, {"version": number})


@pytest.mark.parametrize(
    "found", [{}, {"version": "1.1"}, {"version": True}, {"version": None}, [1.1], 1.1]
)
def test_no_version(found: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected a key 'version' with a number"):
        read(tmp_path, found)


def test_variables(tmp_path: Path) -> None:
    tree = {
        "mdl_vars": {
            "params": {
                "w": described(dtype="bfloat16"),
                "blocks": [described((4,)), described(())],
            },
            "non_trainable": {
                "frozen": {"_array_metadata_tag": True, "is_optax_masked_node": True}
            },
            "nothing": {},
            "none": None,
        }
    }
    variables = read(tmp_path, {"version": 1.1, "train_state_metadata": tree}).variables
    assert variables is not None
    assert {path: v.shape for path, v in variables.items()} == {
        "mdl_vars/params/w": (2, 3),
        "mdl_vars/params/blocks/0": (4,),
        "mdl_vars/params/blocks/1": (),
        "mdl_vars/non_trainable/frozen": None,
    }
    assert variables["mdl_vars/params/w"].dtype == np.dtype("bfloat16")
    assert [path for path, v in variables.items() if v.masked] == ["mdl_vars/non_trainable/frozen"]


def test_all_malformed_descriptions_are_listed(tmp_path: Path) -> None:
    tree = {"a": described([-1]), "b": described(dtype="float33"), "c": 3, "../d": described()}
    with pytest.raises(CheckpointError) as caught:
        read(tmp_path, {"version": 1.1, "train_state_metadata": {"mdl_vars": tree}})
    text = str(caught.value)
    assert "4 problems" in text
    assert "mdl_vars/a: unpadded_shape [-1] is not a list of sizes" in text
    assert "mdl_vars/b: unknown dtype 'float33'" in text
    assert "mdl_vars/c: expected a tree or a description of an array, found 3" in text
    assert "'../d' is empty or could lead out" in text
