"""Opens a PAXml checkpoint of any layout: leaves under canonical paths; only `step` is read."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from converters.arrays import Leaf
from converters.errors import CheckpointError
from converters.paxml.consistency import check_states, check_variables, unmoved
from converters.paxml.layout import Layout, Place, locate
from converters.paxml.metadata import Metadata, Variable, read_metadata
from converters.paxml.names import PARAMS, order, to_dotted_name
from converters.paxml.sources import (
    Contents,
    ancestors,
    read_flax,
    read_ocdbt,
    read_zarr,
    with_spec,
)
from converters.paxml.state import Shape, StateLeaf, factorings, take_apart, unpadded_shape
from converters.stores import StorageError, Store

JOB_DUMP = "model_params.txt"  # PAXml writes it into the job's directory
JOB_FOLDERS = ("", "job_files")  # where it is looked for, in directories above the checkpoint
LISTED = 100  # problems that one message lists


@dataclass(frozen=True)
class Checkpoint:
    """One step of a PAXml job.

    Attributes:
        url: what was opened: a step directory or a file.
        layout: how the checkpoint is laid out.
        step: value of the step leaf; None if it is not a single number.
        leaves: canonical path -> leaf, in the order of the `TrainState`.
        masked: paths of MaskedNode and None leaves, if the layout records them.
        empty: paths of empty containers (`opt_states`, `extra_state`), if the layout records them.
        notes: what the user should know, one line each.
        job_files: the directory with the job's text dumps; None if there is none above the
            checkpoint.
    """

    url: str
    layout: Layout
    step: int | None
    leaves: Mapping[str, Leaf]
    masked: tuple[str, ...]
    empty: tuple[str, ...]
    notes: tuple[str, ...]
    job_files: Store | None


def open_checkpoint(path: str | os.PathLike[str], step: int | None = None) -> Checkpoint:
    """Open the PAXml checkpoint at `path`.

    Args:
        path: a job directory, its `checkpoints/` folder, a step, its `state/` item or a FLAX file.
        step: the step to open; None: the newest finalized one.

    Raises:
        CheckpointError: there is no PAXml checkpoint, or it is incomplete or contradicts itself;
            the message lists everything that is wrong.
    """
    place = locate(path, step)
    metadata = Metadata("0.0", False, None) if place.is_file else read_metadata(place.step)
    contents = _read(place, metadata)
    variables = metadata.variables
    specs = {path: leaf.spec for path, leaf in contents.leaves.items()}
    present = set(specs) | contents.failed
    collections = {PARAMS, *(p.split("/")[1] for p in present if p.startswith("mdl_vars/"))}
    states = [
        take_apart(p, collections)
        for p in sorted(present, key=order)
        if p.startswith("opt_states/")
    ]
    problems = contents.problems + check_variables(specs, present, variables)
    problems += check_states(states, specs, present, variables)
    if problems:
        raise CheckpointError(_message(place.url, problems))
    notes = [*place.notes, *_layout_notes(place, metadata), *contents.notes]
    leaves = _unpad(contents.leaves, variables or {}, states, notes)
    notes += _dtype_notes(leaves.values())
    frozen = unmoved(states, present)
    if frozen:
        notes.append(f"{len(frozen)} variables have no optimizer state (frozen): {_some(frozen)}")
    value = _step_value(leaves["step"])
    if value is not None and place.number is not None and value != place.number:
        notes.append(
            f"the directory's name says step {place.number}, its step leaf says {value}; the leaf "
            "counts"
        )
    return Checkpoint(
        place.url,
        Layout(place.kind, metadata.version, _era(place, metadata, contents)),
        value,
        leaves,
        tuple(sorted({*contents.masked, *_masked(variables or {})}, key=order)),
        tuple(sorted(set(contents.empty), key=order)),
        tuple(notes),
        _job_files(place.url),
    )


def _read(place: Place, metadata: Metadata) -> Contents:
    """Read the contents of the state with the reader for its layout."""
    if place.flat is not None:
        return read_flax(place.step.store, place.flat)
    variables = {to_dotted_name(path): path for path in metadata.variables or {}}
    read = read_ocdbt if place.kind == "ocdbt" else read_zarr
    return read(place.step, place.state, variables)


def _unpad(
    leaves: Mapping[str, Leaf],
    variables: Mapping[str, Variable],
    states: Iterable[StateLeaf],
    notes: list[str],
) -> dict[str, Leaf]:
    """The leaves in canonical order, with shapes without padding and with declared dtypes."""
    found = dict(leaves)
    for path, variable in variables.items():
        if path in found and variable.shape is not None:
            spec = found[path].spec
            if spec.shape != variable.shape or spec.declared_dtype != variable.dtype:
                found[path] = with_spec(
                    found[path], shape=variable.shape, declared_dtype=variable.dtype
                )
    known: dict[str, tuple[str, Shape, Shape, Shape, int]] = {}
    for state in states:
        variable = found.get(state.variable or "")
        if variable is not None:
            stored = found[state.path].spec.stored_shape
            shapes = (stored, variable.spec.stored_shape, variable.spec.shape)
            known[state.path] = (state.field, *shapes, len(state.prefix))
    possible = factorings(known.values())
    unknown: list[str] = []
    for path, about in known.items():
        shape = unpadded_shape(*about, possible)
        if shape is None:
            unknown.append(path)
        elif shape != about[1]:
            found[path] = with_spec(found[path], shape=shape)
    if unknown:
        notes.append(
            f"{len(unknown)} optimizer states of padded variables keep their padding, their own "
            f"shape cannot be told: {_some(sorted(unknown))}"
        )
    return {path: found[path] for path in sorted(found, key=order)}


def _masked(variables: Mapping[str, Variable]) -> list[str]:
    """Variables in place of which the state has a MaskedNode, according to the metadata."""
    return [path for path, variable in variables.items() if variable.masked]


def _layout_notes(place: Place, metadata: Metadata) -> list[str]:
    if not metadata.present and place.state:
        return [
            "no metadata/ directory: shapes are taken as they are on disk (padding included) and "
            "cannot be checked"
        ]
    return []


def _dtype_notes(leaves: Iterable[Leaf]) -> list[str]:
    """One note for each combination of a stored dtype and a different one in the metadata."""
    pairs: dict[tuple[str, str], int] = {}
    for leaf in leaves:
        declared = leaf.spec.declared_dtype
        if declared is not None and declared != leaf.spec.dtype:
            pair = (leaf.spec.dtype.name, declared.name)
            pairs[pair] = pairs.get(pair, 0) + 1
    return [
        f"{count} variables are stored as {stored}, the model's dtype is {declared}; the stored "
        "values are kept (PAXml casts them on restore)"
        for (stored, declared), count in pairs.items()
    ]


def _step_value(leaf: Leaf) -> int | None:
    """Value of the step leaf; None if it is not a single number."""
    values = np.unique(leaf.read())
    return int(values[0]) if values.size == 1 else None


def _era(place: Place, metadata: Metadata, contents: Contents) -> str:
    """The releases of PAXml that write this kind of checkpoint."""
    sharding = "_sharding" in place.step.children(place.state) and not place.is_file
    if metadata.version == "0.0":
        if metadata.present or place.state:
            return "unknown (no version recorded)"
        return "paxml 0.1 - 0.2, continued by paxml 1.4" if sharding else "paxml 0.1 - 0.2"
    if metadata.version == "1.0":
        return "paxml 0.4 - 1.0"
    if metadata.variables is None:
        return "paxml 0.3"
    if place.kind == "msgpack":
        return "paxml 1.1 - 1.4"
    if contents.naming == "positional":
        return "paxml 1.1"
    return "paxml 1.4 or newer" if sharding else "paxml 1.1 - 1.3"


def _job_files(url: str) -> Store | None:
    """The nearest directory above the checkpoint that holds the job's text dumps."""
    try:
        for above in ancestors(url, 3):
            for folder in JOB_FOLDERS:
                if above.exists(f"{folder}/{JOB_DUMP}".lstrip("/")):
                    return above.child(folder) if folder else above
    except (StorageError, OSError):  # not permitted to look there: treated as if there were none
        return None
    return None


def _message(url: str, problems: list[str]) -> str:
    """A message with all problems, one per line."""
    if len(problems) == 1:
        return f"{url}: {problems[0]}"
    shown = problems[:LISTED]
    rest = [f"... and {len(problems) - LISTED} more"] if len(problems) > LISTED else []
    return "\n  ".join([f"{url}: {len(problems)} problems:", *shown, *rest])


def _some(paths: list[str]) -> str:
    return ", ".join(paths[:3]) + (", ..." if len(paths) > 3 else "")
