"""Compares a converted checkpoint with a recording: load, complete settings, compare, explain."""

import fnmatch
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from efficientids_flax.config import EfficientIDSConfig, OptimizerConfig, TimesFMConfig
from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.parameters import refuse_quantized
from efficientids_flax.stored import OptimizerState, as_optax, load_converted
from efficientids_flax.tree import flatten
from parity_tests.check import check, check_kind
from parity_tests.compare import Difference, first_failure
from parity_tests.forecasters import check_forecaster, is_forecaster, read_forecaster
from parity_tests.hints import find_hints
from parity_tests.names.table import ModelConfig
from parity_tests.readers import read
from parity_tests.recording import Recording, RecordingError
from parity_tests.report import Report
from parity_tests.run import (
    Subject,
    Trained,
    belonging,
    in_dtype,
    settings_with_origins,
    settled,
)

PLAIN = ("cluster_assignments", "cluster_indices", "in_cluster_id", "cluster_means")


def parity(
    out: str | os.PathLike[str],
    against: str | os.PathLike[str],
    *,
    clustering: str | os.PathLike[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    dtype: str | None = None,
    only: str | None = None,
    explain: bool = True,
) -> Report:
    """Compare a converted checkpoint with a recording.

    Args:
        out: directory that a conversion wrote.
        against: a recording in the documented format, or a folder that `readers` knows.
        clustering: clustering file of a recommender; None: the one in the recording's folder.
        settings: dotted key of the configuration -> value; overrides the conversion's values.
        dtype: dtype of the computation, see `in_dtype`; None: the recorded one.
        only: pattern of the names to compare.
        explain: whether to look for the cause of the first difference.

    Raises:
        RecordingError, MappingError, ClusteringError, OSError, ValueError: an input cannot be used;
            the message says which and why.
    """
    if is_forecaster(against):
        return _forecaster(out, against, settings, dtype, only)
    recording = in_dtype(read(against), dtype)
    params, state, config = load_converted(out)
    if config.model is None:
        raise RecordingError(f"{out}: config.json has no model, so that nothing can be run")
    refuse_quantized(out, flatten(params))
    check_kind(config.model, recording)
    described, optimizer, notes = settled(config, recording, settings)
    model = check_kind(described, recording)
    tables = tables_of(model, recording, clustering)
    state = _usable(state, optimizer)
    subject = Subject(model, params, tables, _nhd_post(Path(out)))
    differences = check(subject, recording, Trained(optimizer, state), only)
    _refuse_nothing(against, differences, only)
    first = first_failure(differences)
    hints = []
    if explain and first is not None and first.verdict == "DIFFERS":
        one = next((p for p in recording.passes if p.name == first.section), None)
        if one is not None:
            hints = find_hints(
                belonging(subject, recording, one), recording, one, first,
                config.origins.get("model", {}),
            )  # fmt: skip
    told = settings_with_origins(config, model, optimizer, settings)
    return Report(str(out), str(against), recording.origin, differences, hints, notes, told)


def _forecaster(
    out: str | os.PathLike[str],
    against: str | os.PathLike[str],
    settings: Mapping[str, Any] | None,
    dtype: str | None,
    only: str | None,
) -> Report:
    """Compare a converted forecaster with a recording."""
    if dtype not in (None, "float32"):
        raise RecordingError(f"dtype: found {dtype}; recordings of forecasters are in float32")
    recording = read_forecaster(against)
    params, state, config = load_converted(out)
    if not isinstance(config.model, TimesFMConfig):
        what = "has no model" if config.model is None else "is no forecaster"
        raise RecordingError(f"{out}: {what}, {against} is a recording of one")
    model, optimizer, notes = settled(config, recording.described, settings)
    assert isinstance(model, TimesFMConfig)
    state = _usable(state, optimizer)
    found = check_forecaster(model, params, recording, optimizer, state)
    if only is not None:
        found = [item for item in found if fnmatch.fnmatch(item.name, only)]
    _refuse_nothing(against, found, only)
    told = settings_with_origins(config, model, optimizer, settings)
    return Report(str(out), str(against), recording.origin, found, [], notes, told)


def _usable(state: OptimizerState, optimizer: OptimizerConfig | None) -> OptimizerState:
    """The optimizer's state in the form of our transformations, if its decay rates are known."""
    if optimizer is None or None in (optimizer.beta1, optimizer.beta2):
        return state
    return state._replace(optimizer=as_optax(state.optimizer, optimizer))


def _refuse_nothing(against: object, found: list[Difference], only: str | None) -> None:
    if not found:
        what = "nothing is recorded but a batch" if only is None else f"no name matches {only!r}"
        raise RecordingError(f"{against}: {what}")


def _nhd_post(out: Path) -> bool | None:
    """Whether the conversion transposed output projections; None if its manifest does not say."""
    manifest = out / "manifest.json"
    rules = json.loads(manifest.read_text()).get("rules", []) if manifest.is_file() else []
    turned = ["transpose" in rule for rule in rules if "self_attention/post/w" in rule]
    return any(turned) if turned else None


def tables_of(
    model: ModelConfig, recording: Recording, given: str | os.PathLike[str] | None
) -> ClusteringInfo | None:
    """The clustering, given or from the recording; None if the model needs none.

    Raises:
        RecordingError: a clustering is needed, and there is none.
        ClusteringError: it cannot be read, or its tables are wrong.
    """
    if not isinstance(model, EfficientIDSConfig) or model.full_softmax:
        return None
    path = Path(given) if given is not None else recording.clustering
    if path is None:
        raise RecordingError(
            f"{recording.path}: no clustering file beside it; give one with --clustering"
        )
    return read_clustering(path)


def read_clustering(path: Path) -> ClusteringInfo:
    """Read a clustering from any kind of file: the original's pickles, their plain copy, or ours.

    Raises:
        ClusteringError: it cannot be read, or its tables are wrong.
    """
    if path.suffix == ".npz" and path.is_file():
        with np.load(path, allow_pickle=False) as file:
            if all(name in file for name in PLAIN[:3]):
                tables = {name: file[name] for name in file.files}
                return ClusteringInfo.from_assignments(tables[PLAIN[0]], tables.get(PLAIN[3]))
    if path.suffix in (".npz", ".safetensors"):
        return ClusteringInfo.from_file(path)
    return ClusteringInfo.from_pickle(path)
