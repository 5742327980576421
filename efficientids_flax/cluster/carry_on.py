"""Gives a trained model other clusters. All that it learnt is kept, except the cluster table.

The item table is unchanged. The cluster table is set to means of item vectors, of width E. The
adapter maps both tables to the model's width, so a mean lies among the items of its cluster in the
adapter's input space. Letters: I items, K clusters, E item width.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from efficientids_flax.cluster.build import Clustered, ClusterOptions, cluster_items
from efficientids_flax.cluster.sources import of_model
from efficientids_flax.config import EfficientIDSConfig
from efficientids_flax.core.models import EfficientIDSModel
from efficientids_flax.parameters import refuse_quantized
from efficientids_flax.stored import (
    load_config,
    load_converted,
    read_item_names,
    read_prompted,
    save_description,
    training_of,
)
from efficientids_flax.stored.items import read_item, write_item
from efficientids_flax.stored.settings import document, write_config
from efficientids_flax.tree import flatten, unflatten

TABLE = "cluster_embedding/kernel"
# Fields of optimizer states -> their axes for the cluster table [E, K]. Fields that are not used
# for a variable have shape [1].
SLOTS = {
    "m": "EK", "m_scale": "K", "vr": "E", "vc": "K", "v": "EK", "mu": "EK", "nu": "EK",
    "trace": "EK", "ema": "EK",
}  # fmt: skip
AVERAGES = ("ema",)  # hold parameters, not moments


def recluster(
    path: str | os.PathLike[str], into: str | os.PathLike[str], options: ClusterOptions
) -> Clustered:
    """Recluster the item table of a converted or exported recommender, and write the new model.

    Use the new model like the old one. The optimizer state of a conversion is kept, except that of
    the cluster table, which is reset to zero; an export has no optimizer state.

    Args:
        path: directory of the model.
        into: new directory.
        options: see `ClusterOptions`.

    Returns:
        The clustering and its summary; its notes say what was kept of the optimizer state.

    Raises:
        FileExistsError: `into` holds something.
        FileNotFoundError, ValueError: no recommender with a hierarchical softmax is there.
    """
    root, config = epath.Path(into).absolute(), load_config(path)
    model = config.model
    if not isinstance(model, EfficientIDSConfig) or model.full_softmax:
        kind = "has a full softmax" if isinstance(model, EfficientIDSConfig) else "is none"
        raise ValueError(f"{path}: expected a recommender with clusters; it {kind}")
    if root.exists() and any(root.iterdir()):
        raise FileExistsError(f"{into}: is there already; give another directory, or remove it")
    source = of_model(path)
    made = cluster_items(source.embeddings, options, catalogue=source.catalogue)
    means = made.clustering.means
    assert means is not None
    clusters = made.clustering.num_clusters
    if model.num_clusters is not None:
        model = replace(model, num_clusters=clusters)
    converted = load_converted(path, optimizer=False)
    params = converted.params
    refuse_quantized(path, flatten(params))
    if model.trainable_cluster_embeddings:
        before = np.asarray(params["cluster_embedding"]["kernel"])
        params["cluster_embedding"] = {"kernel": means.T.astype(before.dtype)}
    state, told = _state(path, model, means)
    root.mkdir(parents=True, exist_ok=True)
    write_item(root, "params", params)
    if state:
        write_item(root, "state", state)
    save_description(
        into, EfficientIDSModel(config=model, clustering_info=made.clustering),
        training=training_of(path), items=read_item_names(path), origins=config.origins,
        prompt=read_prompted(path, config.model),
    )  # fmt: skip
    if state:
        _keep_optimizer(Path(into), config)
    notes = (*made.summary.notes, told)
    return made._replace(summary=replace(made.summary, notes=notes))


def _state(
    path: str | os.PathLike[str], model: EfficientIDSConfig, means: np.ndarray
) -> tuple[dict[str, Any], str]:
    """(Training state with that of the cluster table reset, a note on what was kept)."""
    stored = read_item(epath.Path(path), "state", None)
    if not stored:
        return {}, "no optimizer state is stored here; all of it begins anew"
    if not model.trainable_cluster_embeddings:
        return stored, "the optimizer's state is kept: there is no trained cluster table"
    leaves = flatten(stored, keep_empty=True)
    mine = [name for name in leaves if TABLE in name]
    if unknown := [name for name in mine if _slot(name) is None]:
        return {}, (
            f"the optimizer's state is left out: what {unknown[0]} is for another clustering is"
            " not known; all of it begins anew"
        )
    for name in mine:
        leaves[name] = _begun(_slot(name) or "", np.asarray(leaves[name]), means)
    return unflatten(leaves), (
        "the optimizer's state is kept, but for the cluster table, whose state begins at zero"
    )


def _slot(name: str) -> str | None:
    """The field of the optimizer's state that a leaf belongs to; None if it is something else."""
    parts = name.split("/")
    known = len(parts) > 3 and parts[0] == "optimizer" and parts[2] in SLOTS
    return parts[2] if known else None


def _begun(slot: str, before: np.ndarray, means: np.ndarray) -> np.ndarray:
    if before.shape == (1,):  # not used
        return before
    if slot in AVERAGES:
        return means.T.astype(before.dtype)
    sizes = {"K": len(means), "E": means.shape[1]}
    return np.zeros([sizes[axis] for axis in SLOTS[slot]], before.dtype)


def _keep_optimizer(root: Path, config: Any) -> None:
    """Copy the description of the optimizer, whose state was kept, into `config.json`."""
    file = root / "config.json"
    now: Mapping[str, Any] = json.loads(file.read_text())
    before = document(config)
    origins = {**now["origins"], **{k: v for k, v in before["origins"].items() if k == "optimizer"}}
    write_config(epath.Path(root), {**now, "optimizer": before["optimizer"], "origins": origins})
