"""Writes a model in the format of a conversion, for `load_model`.

    save_model("exported", model, state.params)
    model, params, config = load_model("exported")

The directory contains `params/` (Orbax), `clustering.npz` if the model has a clustering,
`items.jsonl` if its items have names, `item_words.npz` if prompts have words around items, and
`config.json`, which is written last.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
from etils import epath

from efficientids_flax.backbone import Decoder
from efficientids_flax.config import EfficientIDSConfig
from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.item_model import ItemModel
from efficientids_flax.forecast import TimesFM
from efficientids_flax.parameters import ModelConfig, shape_problems
from efficientids_flax.settings import GIVEN, origins_of_leaves
from efficientids_flax.stored.item_names import ItemNames, write_item_names
from efficientids_flax.stored.item_words import Prompted, write_item_words
from efficientids_flax.stored.items import write_item
from efficientids_flax.stored.load import CLUSTERINGS
from efficientids_flax.stored.settings import (
    CLUSTERING,
    FILE,
    LENGTH,
    MODELS,
    Config,
    Origins,
    document,
    write_config,
)
from efficientids_flax.tree import flatten
from efficientids_flax.whole_files import naming


def save_model(
    path: str | os.PathLike[str],
    model: Decoder | ItemModel | TimesFM,
    params: Mapping[str, Any],
    *,
    training: Mapping[str, Any] | None = None,
    items: ItemNames | None = None,
    origins: Origins | None = None,
    prompt: Prompted | None = None,
) -> None:
    """Write a model's configuration, parameters and clustering; every process must call it.

    Args:
        path: a new or empty directory.
        model: a language model, a recommender or a forecaster of this package.
        params: nested dicts of arrays, sharded or not.
        training: facts about the training, as JSON values, see `training_of`.
        items: names of the model's items.
        origins: `config.origins` of the converted model that this one was made from; None for a
            model that was not converted.
        prompt: how histories become prompts, as in training; None: the prompt of `model`.

    Raises:
        FileExistsError: the directory exists and is not empty.
        OSError: writing failed; what a single process wrote is removed.
        TypeError: `model` is of another kind.
        ValueError: parameters, or names of items, do not fit the model.
    """
    config = _config_of(model)
    leaves = flatten(params)
    shapes = {name: tuple(leaf.shape) for name, leaf in leaves.items()}
    if problems := shape_problems(config, shapes):
        raise ValueError("\n  ".join(["params: they are not the model's:", *problems]))
    root = epath.Path(path).absolute()
    there = root.exists()
    if there and any(root.iterdir()):
        # FILE is written last: an export that is killed leaves parameters without it.
        whole = (root / FILE).exists()
        what = "" if whole else f", without {FILE}, as an export that is killed leaves it"
        raise FileExistsError(
            f"{path}: is there already{what}; give another directory, or remove it"
        )
    about = {"training": training, "items": items, "origins": origins, "prompt": prompt}
    try:
        write_item(root, "params", params)
        save_description(root, model, **about)
    except BaseException:
        if jax.process_count() == 1:  # so that the same call can be repeated
            _remove(root, itself=not there)
        raise


def save_description(
    path: str | os.PathLike[str],
    model: Decoder | ItemModel | TimesFM,
    *,
    training: Mapping[str, Any] | None = None,
    items: ItemNames | None = None,
    origins: Origins | None = None,
    prompt: Prompted | None = None,
) -> None:
    """Write all but the parameters, replacing existing files; only the first process writes.

    Args:
        path: directory of the model.
        model, training, items, origins, prompt: see `save_model`.
    """
    config = _config_of(model)
    if items is not None and (wrong := items.problems(getattr(config, "num_items", 0))):
        raise ValueError(f"items: {wrong[0]}")
    if jax.process_index() != 0:
        return
    root = epath.Path(path).absolute()
    root.mkdir(parents=True, exist_ok=True)
    told = dict(training or {})
    clustering: ClusteringInfo | None = getattr(model, "clustering_info", None)
    if clustering is not None:
        with naming(root / CLUSTERINGS[0]):
            clustering.save(root / CLUSTERINGS[0], overwrite=True)
        told[CLUSTERING] = {"digest": clustering.digest(), "is": clustering.summary()}
    if items is not None:
        write_item_names(root, items)
    length = told.get(LENGTH)
    if length is not None and isinstance(config, EfficientIDSConfig):
        config = replace(config, trained_length=max(length, config.trained_length or 0))
        told[LENGTH] = config.trained_length
    if prompt is not None and isinstance(config, EfficientIDSConfig):
        config = replace(config, prompt=prompt.config)
        if prompt.words is not None:
            write_item_words(root, prompt.words)
    family = next(name for name, kind in MODELS.items() if isinstance(config, kind))
    kept: Origins = {}
    if origins and "model" in origins:
        own = {"trained_length": GIVEN} if length is not None else {}
        own |= {} if prompt is None else {"prompt": GIVEN}
        kept = {"model": origins_of_leaves(config.to_dict(), own, origins["model"])}
    made = document(Config(family, config, None, kept))
    write_config(root, {**made, "training": told or None})


def _remove(root: epath.Path, *, itself: bool) -> None:
    for path in [root] if itself else list(root.iterdir()):
        if path.is_dir():
            path.rmtree(missing_ok=True)
        else:
            path.unlink(missing_ok=True)


def _config_of(model: Any) -> ModelConfig:
    if isinstance(model, Decoder | ItemModel | TimesFM):
        return model.config
    raise TypeError(
        f"model: a {type(model).__name__} cannot be written, its configuration is not known;"
        " the language model, the recommenders and the forecaster of this package can"
    )
