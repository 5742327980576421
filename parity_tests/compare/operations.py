"""What is done to one of our values and the recorded one so that they mean the same."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from efficientids_flax.config import BackboneConfig

MASKED = float(np.float32(-0.7) * np.finfo(np.float32).max)  # Praxis' mask of what is not seen
Pair = tuple[np.ndarray, np.ndarray]  # ours, recorded


@dataclass(frozen=True)
class Context:
    """What an operation may look at.

    Attributes:
        values: all of our values.
        config: of the decoder, or of the layer.
        layer: which prefix our values of the same layer have.
    """

    values: Mapping[str, np.ndarray]
    config: BackboneConfig
    layer: str = ""


def _mask(ours: np.ndarray, recorded: np.ndarray, context: Context) -> Pair:
    """True where a key is seen, against 0 there and a huge negative number elsewhere."""
    del context
    return np.where(ours, 0.0, MASKED).astype(np.float32), recorded


def _part(number: int) -> Callable[[np.ndarray, np.ndarray, Context], Pair]:
    return lambda ours, recorded, _: (ours[number], recorded)


def _cap(ours: np.ndarray, recorded: np.ndarray, context: Context) -> Pair:
    """The plain logits with their bias and under their cap."""
    bias = context.values.get(f"{context.layer}attention/relative_bias")
    ours = ours if bias is None else ours + bias
    cap = context.config.attention_logit_cap
    return (ours if cap is None else cap * np.tanh(ours / cap)), recorded


def _members(ours: np.ndarray, recorded: np.ndarray, context: Context) -> Pair:
    """Any negative member is padding."""
    del context
    return np.maximum(ours, -1), np.maximum(recorded, -1)


def _scale(ours: np.ndarray, recorded: np.ndarray, context: Context) -> Pair:
    """Praxis' `scale_logits_by_head_dims` scales logits in place of queries."""
    root = context.config.head_dim**0.5
    sizes = [float(np.max(np.abs(values), initial=0)) for values in (ours, recorded)]
    later = root > 1 and abs(root * sizes[0] - sizes[1]) < abs(sizes[0] - sizes[1])
    return (ours * np.float32(root) if later else ours), recorded


def _shared(ours: np.ndarray, recorded: np.ndarray, context: Context) -> Pair:
    """A bias that the origin makes once for the whole batch."""
    del context
    one = recorded.shape[0] == 1 and recorded.shape[1:] == ours.shape[1:]
    return ours, np.broadcast_to(recorded, ours.shape) if one else recorded


def _gate(ours: np.ndarray, recorded: np.ndarray, context: Context) -> Pair:
    """Weight of each place [G, X, P], of weights [G, U, X, P] that each have one token a place."""
    del context
    return ours.sum(axis=1), recorded


def _negative(ours: np.ndarray, recorded: np.ndarray, context: Context) -> Pair:
    del context
    return -ours, recorded


OPERATIONS: Mapping[str, Callable[[np.ndarray, np.ndarray, Context], Pair]] = {
    "": lambda ours, recorded, _: (ours, recorded),
    "mask": _mask,
    "part 0": _part(0),
    "part 1": _part(1),
    "part 2": _part(2),
    "cap": _cap,
    "swap": lambda ours, recorded, _: (np.swapaxes(ours, 1, 2), recorded),
    "scale": _scale,
    "shared": _shared,
    "gate": _gate,
    "choice": lambda ours, recorded, _: (np.moveaxis(ours, 1, -1), recorded),
    "members": _members,
    "negative": _negative,
}
