"""PAXml's own metadata: `metadata/metadata` beside the state (`paxml.checkpoint_metadata`).

It gives the version of the layout. Since version 1.1 it also gives the shape without padding, the
dtype and a masked flag of each variable in `mdl_vars` (of nothing else).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.errors import CheckpointError
from converters.paxml.names import join
from converters.paxml.sources import Listing
from converters.zarr import dtype_named

VERSIONS = ("0.0", "1.0", "1.1", "1.2")  # paxml.checkpoint_version; '0.0': there is no file
FILE = "metadata/metadata"
_TAG = "_array_metadata_tag"


@dataclass(frozen=True)
class Variable:
    """What the metadata says about one variable.

    Attributes:
        shape: shape without padding; None for a masked variable.
        dtype: dtype in the model, not necessarily in the file; None for a masked variable.
        masked: whether the state has a MaskedNode in place of the variable.
    """

    shape: tuple[int, ...] | None
    dtype: np.dtype | None
    masked: bool


@dataclass(frozen=True)
class Metadata:
    """Contents of the metadata file.

    Attributes:
        version: one of `VERSIONS`.
        present: whether the file exists.
        variables: canonical path -> variable; None if the file lists no variables.
    """

    version: str
    present: bool
    variables: Mapping[str, Variable] | None


def read_metadata(step: Listing) -> Metadata:
    """Read the metadata of the step directory `step`.

    Raises:
        CheckpointError: the file is not JSON, is malformed, or has an unknown version.
    """
    if not step.has_file(FILE):
        return Metadata("0.0", False, None)
    where = f"{step.store.url}/{FILE}"
    try:
        found = json.loads(step.store.read(FILE))
    except ValueError as error:
        raise CheckpointError(
            f"{where}: not JSON: {error}. Copy the checkpoint again; without its metadata/ "
            "directory it can be read too, then shapes are taken as they are on disk, padding "
            "included."
        ) from error
    version = found.get("version") if isinstance(found, dict) else None
    if isinstance(version, bool) or not isinstance(version, int | float):
        raise CheckpointError(f"{where}: expected a key 'version' with a number, found {version!r}")
    if str(float(version)) not in VERSIONS:
        raise CheckpointError(
            f"{where}: checkpoint version {version} is not supported; known are "
            f"{', '.join(VERSIONS)}"
        )
    tree = found.get("train_state_metadata")
    if tree is None:
        return Metadata(str(float(version)), True, None)
    variables: dict[str, Variable] = {}
    problems: list[str] = []
    _collect(tree, (), variables, problems)
    if problems:
        raise CheckpointError("\n  ".join([f"{where}: {len(problems)} problems:", *problems]))
    return Metadata(str(float(version)), True, variables)


def _collect(
    tree: Any, keys: tuple[str, ...], variables: dict[str, Variable], problems: list[str]
) -> None:
    """Add the variables below `tree`, which is at `keys`."""
    if isinstance(tree, list):
        tree = {str(index): child for index, child in enumerate(tree)}
    name = "/".join(keys)
    if not isinstance(tree, dict):
        if tree is not None:
            problems.append(f"{name}: expected a tree or a description of an array, found {tree!r}")
        return
    if tree.get(_TAG) is not True:
        for key, child in tree.items():
            _collect(child, (*keys, key), variables, problems)
        return
    try:
        variables[join(keys, name)] = _variable(tree)
    except (CheckpointError, KeyError, TypeError, ValueError) as error:
        problems.append(f"{name}: {error}")


def _variable(found: dict[str, Any]) -> Variable:
    masked = found["is_optax_masked_node"] is True
    if "unpadded_shape" not in found or "dtype" not in found:
        return Variable(None, None, masked)
    shape = found["unpadded_shape"]
    if not all(isinstance(size, int) and size >= 0 for size in shape):
        raise ValueError(f"unpadded_shape {shape!r} is not a list of sizes")
    return Variable(tuple(shape), dtype_named(found["dtype"]), masked)
