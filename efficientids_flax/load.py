"""Loads what a conversion wrote: parameters, typed optimizer state, configuration."""

import json
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from efficientids_flax.config import BackboneConfig, EfficientIDSConfig, OptimizerConfig
from efficientids_flax.train.state import typed_states

MODELS = {"transformer_lm": BackboneConfig, "efficientids": EfficientIDSConfig}
OPTIMIZER = "optimizer"

# Where each leaf goes: one sharding for all, or a function of its path and description.
Shardings = jax.sharding.Sharding | Callable[[str, jax.ShapeDtypeStruct], jax.sharding.Sharding]


class Config(NamedTuple):
    """Content of `config.json`.

    Attributes:
        family: name of the table that made the parameter tree.
        model: the model's configuration; None for a generic tree.
        optimizer: what is known of the optimizer; None if nothing is.
    """

    family: str
    model: BackboneConfig | EfficientIDSConfig | None
    optimizer: OptimizerConfig | None


class OptimizerState(NamedTuple):
    """Everything of the training state but the parameters.

    Attributes:
        step: int, steps that were taken.
        optimizer: name -> optax state, as `optax.named_chain` has it, of the first learner.
        rest: further learners, unknown states, other collections, as nested dicts.
    """

    step: int | None
    optimizer: dict[str, Any]
    rest: dict[str, Any]


class Converted(NamedTuple):
    """A converted checkpoint: `params, optimizer_state, config = load_converted(out)`."""

    params: dict[str, Any]
    optimizer_state: OptimizerState
    config: Config


def load_config(path: str | os.PathLike[str]) -> Config:
    """The configuration beside converted weights.

    Args:
        path: directory that `convert-paxml` made.

    Raises:
        FileNotFoundError: no finished conversion is there.
        ValueError: its `config.json` is of an unknown schema.
    """
    file = epath.Path(path) / "config.json"
    if not file.exists():
        raise FileNotFoundError(f"{path}: no config.json; give the OUT directory of convert-paxml")
    found = json.loads(file.read_text())
    if found.get("schema_version") != 1:
        raise ValueError(
            f"{file}: schema {found.get('schema_version')!r} is not 1; it was written by another "
            "version of efficientids_flax"
        )
    model, optimizer = found["model"], found["optimizer"]
    return Config(
        found["family"],
        MODELS[found["family"]].from_dict(model) if model is not None else None,
        OptimizerConfig.from_dict(optimizer) if optimizer is not None else None,
    )


def load_converted(
    path: str | os.PathLike[str], shardings: Shardings | None = None, *, optimizer: bool = True
) -> Converted:
    """Load a converted checkpoint, in either of its formats.

    Args:
        path: directory that `convert-paxml` made.
        shardings: where the leaves go, on any mesh of today: each device reads its part. None gives
            NumPy arrays on the host. A function is given the leaf's path ('params/...').
        optimizer: whether the training state is loaded too.

    Returns:
        (params, optimizer state, configuration). Optimizer states are the optax types, which a
        plain restore turns into dicts.

    Raises:
        FileNotFoundError, ValueError: see `load_config`.
    """
    root = epath.Path(path)
    config = load_config(path)
    params = _item(root, "params", shardings)
    state = _item(root, "state", shardings) if optimizer else {}
    chain = typed_states(state.pop(OPTIMIZER, {}))
    step = state.pop("step", None)
    step = None if step is None else int(np.asarray(step).reshape(()))
    return Converted(params, OptimizerState(step, chain, state), config)


def _item(root: epath.Path, item: str, shardings: Shardings | None) -> dict[str, Any]:
    if (root / item).is_dir():
        return _restore(root / item, item, shardings)
    if any(root.glob(f"{item}*.safetensors")):
        return _read_safetensors(root, item, shardings)
    if item == "state":
        return {}
    raise FileNotFoundError(f"{root}: has neither {item}/ nor {item}.safetensors")


def _restore(path: epath.Path, item: str, shardings: Shardings | None) -> dict[str, Any]:
    import orbax.checkpoint as ocp

    with ocp.PyTreeCheckpointer() as checkpointer:
        if shardings is None:
            return checkpointer.restore(path)
        metadata = checkpointer.metadata(path).item_metadata
        tree = getattr(metadata, "tree", metadata)

        def describe(keys: Any, leaf: Any) -> ocp.ArrayRestoreArgs:
            shape = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
            name = "/".join([item, *(str(getattr(key, "key", key)) for key in keys)])
            return ocp.ArrayRestoreArgs(sharding=_sharding(shardings, name, shape))

        arguments = jax.tree_util.tree_map_with_path(describe, tree)
        return checkpointer.restore(path, restore_args=arguments)


def _read_safetensors(root: epath.Path, item: str, shardings: Shardings | None) -> dict[str, Any]:
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise ImportError("safetensors is not installed: pip install safetensors") from error
    tree: dict[str, Any] = {}
    for file in sorted(root.glob(f"{item}*.safetensors")):
        with safe_open(os.fspath(file), framework="numpy") as values:
            for name in values.keys():  # noqa: SIM118 (not a mapping)
                leaf: Any = values.get_tensor(name)
                if shardings is not None:
                    shape = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
                    leaf = jax.device_put(leaf, _sharding(shardings, f"{item}/{name}", shape))
                _put(tree, name.split("/"), leaf)
    return tree


def _sharding(shardings: Shardings, name: str, leaf: jax.ShapeDtypeStruct) -> jax.sharding.Sharding:
    return shardings if isinstance(shardings, jax.sharding.Sharding) else shardings(name, leaf)


def _put(tree: dict[str, Any], keys: list[str], leaf: Any) -> None:
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
    tree[keys[-1]] = leaf


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """'/'-joined path -> leaf, of nested dicts."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        found |= flatten(value, f"{name}/") if isinstance(value, Mapping) else {name: value}
    return found
