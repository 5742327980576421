"""Assumed settings of a stored model: a warning, given once, or an error when it is loaded."""

import os
import warnings
from collections.abc import Collection, Mapping
from typing import Any

from etils import epath

from efficientids_flax.settings import assumed, assumed_lines, assumed_optimizer
from efficientids_flax.stored.settings import Config

MATTERS = ("forward", "training", "optimizer")
"""What a setting changes: activations and logits; only loss and steps; the learner's next step."""
_TOLD: set[tuple[str, str]] = set()  # (path, message) of the warnings given in this process


def assumed_in(config: Config, parts: Collection[str]) -> dict[str, dict[str, Any]]:
    """The assumed settings of a configuration that matter.

    Args:
        config: from `load_config`. In a part without origins nothing was assumed.
        parts: a subset of `MATTERS`.

    Returns:
        Part -> key -> assumed value, without parts that have none.
    """
    found: dict[str, dict[str, Any]] = {}
    if config.model is not None and "model" in config.origins:
        origins = config.origins["model"]
        found["forward"] = assumed(config.model, origins, "forward")
        found["training"] = assumed(config.model, origins, "training")
    if config.optimizer is not None and "optimizer" in config.origins:
        found["optimizer"] = assumed_optimizer(config.optimizer, config.origins["optimizer"])
    return {part: values for part, values in found.items() if values and part in parts}


def tell_assumed(
    path: str | os.PathLike[str], found: Mapping[str, Mapping[str, Any]], *, strict: bool
) -> None:
    """Warn of assumed settings, once for each path and message, or raise.

    Args:
        path: directory of the stored model.
        found: from `assumed_in`.
        strict: raise instead of warning.

    Raises:
        ValueError: something was assumed, and `strict` is set.
    """
    lines = assumed_lines(found, os.fspath(path))
    if not lines:
        return
    message = "\n  ".join([f"{path}: not all of its settings are known:", *lines])
    if strict:
        raise ValueError(message)
    said = str(epath.Path(path).absolute()), message
    if said not in _TOLD:
        _TOLD.add(said)
        warnings.warn(message, UserWarning, stacklevel=3)  # the line that called our caller
