"""Checks of hidden states and targets for a head that is used alone, on any backbone.

Shapes and dtypes are always checked, values only outside of jit. Letters: D width of the hidden
states, V words, I items; `...` any leading axes.
"""

from typing import Any

import numpy as np

from efficientids_flax.array_checks import FLOATS, described, form_problems, label_problems
from efficientids_flax.core.model_checks import raise_listed

NAMES = {"labels": "targets", "label_item_weights": "target_is_item"}
LIKE = "that of the hidden states without their width"


def check_arguments(
    hidden: Any,
    dims: int | None,
    items: int,
    targets: Any,
    weights: Any,
    target_is_item: Any,
    word_logits: Any,
) -> None:
    """Raise if the arguments of `HierarchicalSoftmax` do not fit it or each other.

    Args:
        hidden: [..., D].
        dims: D of the parameters; None if they do not exist yet.
        items: I.
        targets, weights, target_is_item: [...] or None.
        word_logits: [..., V] or None.

    Raises:
        ValueError: naming every wrong argument, what was found and what was expected.
    """
    problems = width_problems(hidden, dims) or form_problems("hidden", hidden, FLOATS, None, "")
    shape, words = np.shape(hidden)[:-1], 0
    if word_logits is not None:
        found = np.shape(word_logits)
        if len(found) != len(shape) + 1 or found[:-1] != shape:
            wanted = ", ".join([*map(str, shape), "V"])
            problems.append(f"word_logits: found {described(word_logits)}, expected [{wanted}]")
        else:
            problems += form_problems("word_logits", word_logits, FLOATS, None, "")
            words = found[-1]
    labels = {"labels": targets, "weights": weights, "label_item_weights": target_is_item}
    if targets is None:
        problems += [
            f"{NAMES.get(name, name)}: given without the targets that it belongs to"
            for name, value in labels.items()
            if value is not None
        ]
    else:
        problems += label_problems(labels, shape, LIKE, items, words, NAMES)
    raise_listed("HierarchicalSoftmax", problems)


def width_problems(hidden: Any, dims: int | None) -> list[str]:
    """Problems if the hidden states have another width than the parameters."""
    shape = np.shape(hidden)
    if shape and dims in (None, shape[-1]):
        return []
    needed = "[..., D]" if dims is None else f"[..., {dims}], the width of the parameters"
    return [f"hidden: found {described(hidden)}, expected {needed}"]
