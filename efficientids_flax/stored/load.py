"""Loads a converted checkpoint: the model and its parameters, or everything that is stored.

model, params, config = load_model(out, clustering="clustering.npz")
params, optimizer_state, config = load_converted(out)
"""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from etils import epath

from efficientids_flax.config import BackboneConfig, EfficientIDSConfig, TimesFMConfig
from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.parameters import ModelConfig, refuse_quantized, shape_problems
from efficientids_flax.stored.doubts import assumed_in, tell_assumed
from efficientids_flax.stored.free_memory import check_parameters
from efficientids_flax.stored.items import Shardings, read_item, sharding_of, stored_parameters
from efficientids_flax.stored.optimizer_states import typed_states
from efficientids_flax.stored.settings import CLUSTERING, Config, load_config, training_of
from efficientids_flax.tree import flatten

if TYPE_CHECKING:
    from efficientids_flax.backbone import Decoder
    from efficientids_flax.core.models import EfficientIDSModel
    from efficientids_flax.forecast import TimesFM

__all__ = [
    "Converted",
    "Loaded",
    "OptimizerState",
    "Shardings",
    "flatten",
    "load_converted",
    "load_model",
]

OPTIMIZER = "optimizer"
CLUSTERINGS = ("clustering.npz", "clustering.safetensors", "clustering.pkl")  # searched in OUT
PICKLES = (".pkl", ".pickle")
MEMORY = ("refuse", "warn", "ignore")


class OptimizerState(NamedTuple):
    """The training state without the parameters.

    Attributes:
        step: int, number of steps taken.
        optimizer: name -> optax state of the first learner, as in `optax.named_chain`.
        rest: further learners, unknown states and other collections, as nested dicts.
    """

    step: int | None
    optimizer: dict[str, Any]
    rest: dict[str, Any]


class Converted(NamedTuple):
    """A converted checkpoint: `params, optimizer_state, config = load_converted(out)`."""

    params: dict[str, Any]
    optimizer_state: OptimizerState
    config: Config


class Loaded(NamedTuple):
    """A model ready to run: `model, params, config = load_model(out)`.

    Attributes:
        model: the module that `config.model` describes; `model.apply({"params": params}, ...)`.
        params: nested dicts of arrays: NumPy's, unless `shardings` were given. To call the model
            often, move them to the device once, by `jax.device_put`.
        config: from `load_config`, with the dtypes passed to `load_model`.
    """

    model: Decoder | EfficientIDSModel | TimesFM
    params: dict[str, Any]
    config: Config


def load_model(
    path: str | os.PathLike[str],
    clustering: ClusteringInfo | str | os.PathLike[str] | None = None,
    shardings: Shardings | None = None,
    *,
    dtype: str | None = None,
    param_dtype: str | None = None,
    memory: Literal["refuse", "warn", "ignore"] = "refuse",
    strict: bool = False,
) -> Loaded:
    """Load the model of a converted checkpoint, ready to run.

    Names, shapes and memory are checked before an array is read. A `UserWarning` lists, once,
    settings that the conversion assumed and that change activations or logits.

    Args:
        path: output of `efficientids convert`, `convert-hf` or `export`.
        clustering: for a recommender with a hierarchical softmax: the tables, or their file
            (.npz, .safetensors, or the original's pickle). None: `clustering.npz`,
            `clustering.safetensors` or `clustering.pkl` in `path`.
        shardings: see `load_converted`.
        dtype: dtype of the computation, such as 'bfloat16'; None: as configured.
        param_dtype: dtype to cast float parameters to; None: unchanged.
        memory: what to do if the parameters need more memory than is free.
        strict: assumed settings are an error.

    Returns:
        A `Decoder` for a language model, an `EfficientIDSModel` for a recommender, a `TimesFM` for
        a forecaster.

    Raises:
        FileNotFoundError: `path` is not a converted checkpoint, or there is no clustering.
        MemoryError: there is too little memory, and `memory` is 'refuse'.
        ValueError: the checkpoint has no known model, its weights are quantized, its parameters do
            not fit its configuration, the clustering does not fit, or settings were assumed and
            `strict` is set; see also `load_config`.
    """
    if memory not in MEMORY:
        raise ValueError(f"memory: expected one of {', '.join(MEMORY)}, found {memory!r}")
    model, config = load_description(path, clustering, dtype=dtype, param_dtype=param_dtype)
    assert config.model is not None
    tell_assumed(path, assumed_in(config, ("forward",)), strict=strict)
    stored = stored_parameters(path)
    refuse_quantized(path, stored)
    if problems := shape_problems(
        config.model, {name: leaf.shape for name, leaf in stored.items()}
    ):
        raise ValueError(
            "\n  ".join([f"{path}: the parameters are not those of config.json:", *problems])
        )
    if memory != "ignore":
        chosen = {
            name: None if shardings is None else sharding_of(shardings, f"params/{name}", leaf)
            for name, leaf in stored.items()
        }
        check_parameters(os.fspath(path), stored, chosen, param_dtype, refuse=memory == "refuse")
    params = load_converted(path, shardings, optimizer=False).params
    return Loaded(model, _cast(params, param_dtype), config)


def load_description(
    path: str | os.PathLike[str],
    clustering: ClusteringInfo | str | os.PathLike[str] | None = None,
    *,
    dtype: str | None = None,
    param_dtype: str | None = None,
) -> tuple[Decoder | EfficientIDSModel | TimesFM, Config]:
    """The model without its parameters, and its configuration; see `load_model`.

    Raises:
        FileNotFoundError, ValueError: see `load_model`.
    """
    config = load_config(path)
    if config.model is None:
        raise ValueError(
            f"{path}: family {config.family!r} has no model, only parameters; load_converted loads "
            "them for a model of your own"
        )
    described = _with_dtypes(config.model, dtype, param_dtype)
    config, model = config._replace(model=described), _build(path, described, clustering)
    wanted = training_of(path).get(CLUSTERING)
    found: ClusteringInfo | None = getattr(model, "clustering_info", None)
    if wanted is not None and found is not None and found.digest() != wanted["digest"]:
        raise ValueError(
            f"{path}: clustering: found another ({found.summary()}, digest {found.digest()}) than"
            f" the model was trained with ({wanted['is']}, digest {wanted['digest']}); its items"
            " would stand for others"
        )
    return model, config


def load_converted(
    path: str | os.PathLike[str], shardings: Shardings | None = None, *, optimizer: bool = True
) -> Converted:
    """Load a converted checkpoint, in either of its formats.

    Args:
        path: output of `efficientids convert`, `convert-hf` or `export`.
        shardings: a sharding for all leaves, or a function of a leaf's path ('params/...'); each
            device reads its part. None: NumPy arrays on the host.
        optimizer: whether to load the training state too.

    Returns:
        (params, optimizer state, configuration). Optimizer states have optax's types, unlike those
        of a plain Orbax restore, which are dicts.

    Raises:
        FileNotFoundError, ValueError: see `load_config`.
    """
    root = epath.Path(path)
    config = load_config(path)
    params = read_item(root, "params", shardings)
    state = read_item(root, "state", shardings) if optimizer else {}
    chain = typed_states(state.pop(OPTIMIZER, {}))
    step = state.pop("step", None)
    step = None if step is None else int(np.asarray(step).reshape(()))
    return Converted(params, OptimizerState(step, chain, state), config)


def _build(
    path: str | os.PathLike[str],
    config: ModelConfig,
    clustering: ClusteringInfo | str | os.PathLike[str] | None,
) -> Decoder | EfficientIDSModel | TimesFM:
    from efficientids_flax.backbone import Decoder
    from efficientids_flax.core.models import EfficientIDSModel
    from efficientids_flax.forecast import TimesFM

    needed = isinstance(config, EfficientIDSConfig) and not config.full_softmax
    if clustering is not None and not needed:
        kinds = {BackboneConfig: "a language model", TimesFMConfig: "a forecaster"}
        kind = kinds.get(type(config), "a full softmax")
        raise ValueError(f"clustering: {path} is {kind}, which has none")
    if isinstance(config, BackboneConfig):
        return Decoder(config)
    if isinstance(config, TimesFMConfig):
        return TimesFM(config)
    tables = clustering_of(path, clustering) if needed else None
    return EfficientIDSModel(config, clustering_info=tables)


def clustering_of(
    path: str | os.PathLike[str], given: ClusteringInfo | str | os.PathLike[str] | None = None
) -> ClusteringInfo:
    """The given clustering tables, or those in the checkpoint's directory.

    Args:
        path: directory of a converted recommender.
        given: the tables, or their file; None: look in `path`.

    Raises:
        FileNotFoundError: none were given, and `path` has none.
    """
    if isinstance(given, ClusteringInfo):
        return given
    if given is None:
        files = [epath.Path(path) / name for name in CLUSTERINGS]
        given = next((file for file in files if file.exists()), None)
    if given is None:
        raise FileNotFoundError(
            f"{path}: the recommender needs its clustering, which the checkpoint does not hold; "
            f"give the file, or put it there: convert-clustering FILE {path}/{CLUSTERINGS[0]}"
        )
    read = ClusteringInfo.from_file
    if os.fspath(given).endswith(PICKLES):
        read = ClusteringInfo.from_pickle
    return read(given)


def _with_dtypes(config: ModelConfig, dtype: str | None, param_dtype: str | None) -> Any:
    """The configuration with the given dtypes; None leaves one unchanged."""
    given = {"dtype": dtype, "param_dtype": param_dtype}
    changes: Any = {name: value for name, value in given.items() if value is not None}
    if not isinstance(config, EfficientIDSConfig):
        return dataclasses.replace(config, **changes)
    return dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, **changes))


def _cast(tree: dict[str, Any], dtype: str | None) -> dict[str, Any]:
    """Cast float leaves in place, one by one, so that each original can be freed at once."""
    if dtype is None:
        return tree
    for name, leaf in tree.items():
        if isinstance(leaf, dict):
            _cast(leaf, dtype)
        elif jnp.issubdtype(leaf.dtype, jnp.floating):
            tree[name] = leaf.astype(dtype)
    return tree
