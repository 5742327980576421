"""Converts a state to leaves by path, as checkpoints store them, and back."""

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.train.keys import is_key, key_data, like_key
from efficientids_flax.train.state.carried import OPTIMIZER, TrainState, split_parameters
from efficientids_flax.train.state.disk.faults import CheckpointMismatch
from efficientids_flax.tree import flatten, leaves_by_path, path_of

PARAMETERS, MASTER = "params/", "master/"
APART = (OPTIMIZER, MASTER)  # leaves that a run can make itself
SHOWN = 20  # leaves that an error names


def stored_leaves(state: TrainState) -> dict[str, Any]:
    """Path -> leaf, of everything that a checkpoint stores."""
    tree = {
        "step": state.step,
        "rng": state.rng,
        "params": state.params,
        "opt_state": state.opt_state,
        "model_state": state.model_state,
        "master": state.master,
    }
    found = leaves_by_path(tree)
    return {path: key_data(leaf) if is_key(leaf) else leaf for path, leaf in found.items()}


def without_master(
    found: Mapping[str, Any], wanted: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(found, wanted), adapted for comparison if the run has master copies and its checkpoint none.

    The copies will be made from the parameters, and optimizer state in half precision is read into
    float32.

    Args:
        found: path -> shape and dtype of the leaves of a checkpoint.
        wanted: path -> leaf of the run.
    """
    copies = {path for path in wanted if path.startswith(MASTER)}
    if not copies or copies & found.keys():
        return dict(found), dict(wanted)

    def widened(path: str, leaf: Any) -> Any:
        like = wanted.get(path)
        if like is None or not path.startswith(OPTIMIZER) or like.dtype != np.float32:
            return leaf
        if tuple(leaf.shape) != tuple(like.shape) or not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        return shape_of(like)

    return (
        {path: widened(path, leaf) for path, leaf in found.items()},
        {path: leaf for path, leaf in wanted.items() if path not in copies},
    )


def rebuilt(like: TrainState, leaves: Mapping[str, Any]) -> TrainState:
    """A state with the structure of `like` from stored leaves.

    Missing master copies are made from the parameters.
    """
    made = {
        path: jnp.asarray(leaves[f"params/{path.removeprefix(MASTER)}"], jnp.float32)
        for path in stored_leaves(like)
        if path.startswith(MASTER) and path not in leaves
    }
    leaves = {**leaves, **made}

    def part(name: str, tree: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda keys, like: like_key(
                leaves["/".join(filter(None, [name, path_of(keys)]))], like
            ),
            tree,
        )

    frozen = flatten(like.frozen)
    trained, kept = split_parameters(part("params", like.params), lambda path: path in frozen)
    return TrainState(
        step=leaves["step"],
        trained=trained,
        frozen=kept,
        opt_state=part("opt_state", like.opt_state),
        model_state=part("model_state", like.model_state),
        rng=leaves["rng"],
        master=part("master", like.master),
    )


def precise_source(path: str, found: Collection[str]) -> str:
    """The path of a checkpoint's leaf that has the numbers of a leaf of a run, least rounded.

    Args:
        path: of the run's leaf.
        found: paths of the checkpoint's leaves.
    """
    for kind in (PARAMETERS, MASTER):
        if path.startswith(kind):
            name = path.removeprefix(kind)
            return MASTER + name if MASTER + name in found else PARAMETERS + name
    return path


def shape_of(leaf: Any, dtype: Any = None) -> jax.ShapeDtypeStruct:
    """Shape, dtype (another one, if given) and sharding of a leaf."""
    sharding = leaf.sharding if isinstance(leaf, jax.Array) else None
    return jax.ShapeDtypeStruct(leaf.shape, dtype or leaf.dtype, sharding=sharding)


def check_leaves(
    where: str,
    found: Mapping[str, Any],
    wanted: Mapping[str, Any],
    parameters_alone: bool = False,
    flag: bool = False,
) -> None:
    """Raise if the leaves of a checkpoint differ from those of a run.

    Args:
        where: path of the checkpoint.
        found: path -> shape and dtype of its leaves.
        wanted: path -> leaf of the run.
        parameters_alone: optimizer state, master copies and all dtypes may differ.
        flag: name the flag that accepts the difference, if there is one.

    Raises:
        CheckpointMismatch: names the leaves that differ.
    """

    def told(leaf: Any) -> str | None:
        if leaf is None:
            return None
        return f"{list(leaf.shape)} {np.dtype(leaf.dtype)}"

    def same_shape(name: str) -> bool:
        there, here = found.get(name), wanted.get(name)
        if there is None or here is None:
            return False
        return tuple(there.shape) == tuple(here.shape)

    differ: dict[str, str] = {}
    for name in sorted({*found, *wanted}):
        if parameters_alone and name.startswith(APART):
            continue
        there, here = found.get(name), wanted.get(name)
        alike = same_shape(name) if parameters_alone else told(there) == told(here)
        if not alike:
            differ[name] = (
                f"{name}: the checkpoint has {told(there) or 'none'}, this run"
                f" {told(here) or 'none'}"
            )
    if differ:
        problems = list(differ.values())
        more = len(problems) - SHOWN
        shown = problems[:SHOWN] + ([f"and {more} more"] if more > 0 else [])
        way = "another directory begins anew"
        others = {name for name in differ if not name.startswith(APART)}
        if flag and not others:
            way += "; --allow-change optimizer: these begin anew, the parameters stay"
        elif flag and all(map(same_shape, others)):
            way += "; --allow-change model: the parameters stay, in the dtypes of this run"
        head = (
            f"{where}: of another model, optimizer or freezing; {len(problems)} leaves differ"
            f" ({way}):"
        )
        raise CheckpointMismatch("\n  ".join([head, *shown]))
