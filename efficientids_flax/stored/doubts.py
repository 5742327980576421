"""Settings of a stored model that nothing told: said once, or refused, where it is loaded."""

import os
import warnings
from collections.abc import Collection, Mapping
from typing import Any

from etils import epath

from efficientids_flax.settings import assumed, assumed_lines, assumed_optimizer
from efficientids_flax.stored.settings import Config

MATTERS = ("forward", "training", "optimizer")
"""What settings change: activations and logits; losses and steps alone; the learner's next step."""
_TOLD: set[tuple[str, str]] = set()  # places and messages that were said in this process


def assumed_in(config: Config, parts: Collection[str]) -> dict[str, dict[str, Any]]:
    """What was assumed of a configuration and matters.

    Args:
        config: of `load_config`. Of a part without origins nothing was assumed.
        parts: of `MATTERS`.

    Returns:
        Part -> key -> the value that was assumed, without parts that have none.
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
    """Warn of what was assumed, once a path and list, or raise.

    Args:
        path: of the stored model.
        found: of `assumed_in`.
        strict: raise.

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
        warnings.warn(message, UserWarning, stacklevel=3)  # where the caller was called
