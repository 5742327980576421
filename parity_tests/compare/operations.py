"""Operations that bring one of our values and the recorded one to the same meaning."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from efficientids_flax.config import BackboneConfig

MASKED = float(np.float32(-0.7) * np.finfo(np.float32).max)  # Praxis' value for masked logits
RELATIVE_BIAS = "attention/relative_bias"
BESIDE = (RELATIVE_BIAS,)  # other values of the same layer that operations use
Pair = tuple[np.ndarray, np.ndarray]  # ours, recorded


@dataclass(frozen=True)
class Context:
    """What an operation may use besides its two values.

    Attributes:
        values: all of our values.
        config: configuration of the decoder, or of the layer.
        layer: prefix of our values in the same layer.
    """

    values: Mapping[str, np.ndarray]
    config: BackboneConfig
    layer: str = ""


def _mask(ours: np.ndarray, recorded: np.ndarray, _: Context) -> Pair:
    """Ours is True where a key is seen; recorded is 0 there, and hugely negative elsewhere."""
    return np.where(ours, 0.0, MASKED).astype(np.float32), recorded


def _part(number: int) -> Callable[[np.ndarray, np.ndarray, Context], Pair]:
    return lambda ours, recorded, _: (ours[number], recorded)


def _probs(ours: np.ndarray, recorded: np.ndarray, context: Context) -> Pair:
    """Ours is [B, N, T, S]; recorded may have other orders of axes, or blocks of a local window.

    Praxis' `MultiQueryDotProductAttention` with several key heads reshapes to [B, T, N, S] without
    transposing; another recorder may have transposed. If the shapes fit both, the nearer one is
    taken.
    """
    if recorded.ndim == 5 and recorded.size != ours.size:
        return ours, by_key(
            recorded, np.zeros_like(ours), context.config.sliding_window, masked=True
        )
    if recorded.ndim != 4 or recorded.shape not in (ours.shape, np.swapaxes(ours, 1, 2).shape):
        return ours, recorded
    orders = [recorded.reshape(ours.shape)]
    if (turned := np.swapaxes(recorded, 1, 2)).shape == ours.shape:
        orders.append(turned)
    return ours, min(orders, key=lambda order: float(np.max(np.abs(ours - order), initial=0)))


def by_key(
    blocks: np.ndarray, around: np.ndarray, window: int | None, *, masked: bool = False
) -> np.ndarray:
    """Rearrange the blocks of Praxis' `LocalSelfAttention` to one row of keys per query.

    Args:
        blocks: [B, N, U, W, C]: U blocks of W queries, each of which sees C keys: those of its
            window before the block, those in the block, and those after it.
        around: [B, N, T, S], the values outside of the blocks.
        window: number of keys that a query sees, including its own.
        masked: whether `blocks` also have valid values for keys that a query does not see.

    Returns:
        [B, N, T, S]; `blocks` itself if its shape does not fit.
    """
    _, _, count, width, seen = blocks.shape
    times = around.shape[2]
    fits = blocks.shape[:2] == around.shape[:2] and count == -(-times // width)
    if window is None or not fits or seen < width + window - 1:
        return blocks
    found = around.copy()
    for query in range(times):
        block, place = divmod(query, width)
        first = block * width - (window - 1)  # the key at index 0 of the block
        start, end = first, first + seen
        if not masked:
            ahead = seen - width - (window - 1)
            start, end = query - window + 1, query + ahead + 1
        least, last = max(start, 0), min(end, times)
        found[:, :, query, least:last] = blocks[:, :, block, place, least - first : last - first]
    return found


def _far(ours: np.ndarray, recorded: np.ndarray, context: Context) -> Pair:
    """Ours goes from later keys to earlier ones; recorded has a window, in the other order."""
    window = context.config.sliding_window
    if window is None or recorded.shape[1] == ours.shape[0]:
        return ours, recorded
    distances = window - 1 - np.arange(recorded.shape[1])
    return ours[(ours.shape[0] - 1) // 2 + distances], recorded


def _cap(ours: np.ndarray, recorded: np.ndarray, context: Context) -> Pair:
    """Add the relative bias to our plain logits, and apply their cap."""
    bias = context.values.get(f"{context.layer}{RELATIVE_BIAS}")
    ours = ours if bias is None else ours + bias
    cap = context.config.attention_logit_cap
    ours = ours if cap is None else cap * np.tanh(ours / cap)
    if recorded.ndim == 5:
        recorded = by_key(recorded, ours, context.config.sliding_window)
    return ours, recorded


def _members(ours: np.ndarray, recorded: np.ndarray, _: Context) -> Pair:
    """Any negative member means padding."""
    return np.maximum(ours, -1), np.maximum(recorded, -1)


def _scale(ours: np.ndarray, recorded: np.ndarray, context: Context) -> Pair:
    """Praxis' `scale_logits_by_head_dims` scales logits instead of queries."""
    root = context.config.head_dim**0.5
    sizes = [float(np.max(np.abs(values), initial=0)) for values in (ours, recorded)]
    later = root > 1 and abs(root * sizes[0] - sizes[1]) < abs(sizes[0] - sizes[1])
    return (ours * np.float32(root) if later else ours), recorded


def _shared(ours: np.ndarray, recorded: np.ndarray, _: Context) -> Pair:
    """A bias that the origin computes once for the whole batch."""
    one = recorded.shape[0] == 1 and recorded.shape[1:] == ours.shape[1:]
    return ours, np.broadcast_to(recorded, ours.shape) if one else recorded


def _gate(ours: np.ndarray, recorded: np.ndarray, _: Context) -> Pair:
    """Sum our weights [G, U, X, P], of one token per place, to weights of places [G, X, P]."""
    return ours.sum(axis=1), recorded


def _negative(ours: np.ndarray, recorded: np.ndarray, _: Context) -> Pair:
    return -ours, recorded


OPERATIONS: Mapping[str, Callable[[np.ndarray, np.ndarray, Context], Pair]] = {
    "": lambda ours, recorded, _: (ours, recorded),
    "mask": _mask,
    "part 0": _part(0),
    "part 1": _part(1),
    "part 2": _part(2),
    "cap": _cap,
    "probs": _probs,
    "far": _far,
    "swap": lambda ours, recorded, _: (np.swapaxes(ours, 1, 2), recorded),
    "scale": _scale,
    "shared": _shared,
    "gate": _gate,
    "choice": lambda ours, recorded, _: (np.moveaxis(ours, 1, -1), recorded),
    "members": _members,
    "negative": _negative,
}
