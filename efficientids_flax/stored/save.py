"""Writes a model as a conversion does, so that `load_model` opens it.

    save_model("exported", model, state.params)
    model, params, config = load_model("exported")

A directory of `params/` (Orbax), `clustering.npz` where the model has a clustering, and, when all
of it is there, `config.json`.
"""

import os
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath

from efficientids_flax.backbone import Decoder
from efficientids_flax.config import BackboneConfig, EfficientIDSConfig
from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.item_model import ItemModel
from efficientids_flax.parameters import shape_problems
from efficientids_flax.settings import origins_of_leaves
from efficientids_flax.stored.items import write_item
from efficientids_flax.stored.load import CLUSTERINGS
from efficientids_flax.stored.settings import MODELS, SCHEMA, Origins, write_config
from efficientids_flax.tree import flatten


def save_model(
    path: str | os.PathLike[str],
    model: Decoder | ItemModel,
    params: Mapping[str, Any],
    *,
    origins: Origins | None = None,
) -> None:
    """Write a model's configuration, parameters and clustering; every process must call it.

    Args:
        path: directory to make, or an empty one.
        model: a language model or a recommender of this package.
        params: nested dicts of arrays, sharded or not.
        origins: `config.origins` of the converted model that this one was made from; None for a
            model whose settings are not inferred.

    Raises:
        FileExistsError: something is there already.
        TypeError: another kind of model, which has no configuration to write.
        ValueError: parameters that are not the model's.
    """
    if not isinstance(model, Decoder | ItemModel):
        raise TypeError(
            f"model: a {type(model).__name__} cannot be written, its configuration is not known;"
            " the language model and the recommenders of this package can"
        )
    config: BackboneConfig | EfficientIDSConfig = model.config
    leaves = flatten(params)
    shapes = {name: tuple(leaf.shape) for name, leaf in leaves.items()}
    if problems := shape_problems(config, shapes):
        raise ValueError("\n  ".join(["params: they are not the model's:", *problems]))
    root = epath.Path(path).absolute()
    if root.exists() and any(root.iterdir()):
        raise FileExistsError(f"{path}: is there already; give another directory, or remove it")
    write_item(root, "params", params)
    if jax.process_index() != 0:
        return
    clustering: ClusteringInfo | None = getattr(model, "clustering_info", None)
    if clustering is not None:
        clustering.save(root / CLUSTERINGS[0])
    family = next(name for name, kind in MODELS.items() if isinstance(config, kind))
    content: dict[str, Any] = {
        "schema_version": SCHEMA,
        "family": family,
        "model": config.to_dict(),
        "optimizer": None,
    }
    if origins and "model" in origins:
        content["origins"] = {"model": origins_of_leaves(config.to_dict(), origins["model"])}
    write_config(root, content)
