"""Loads a recommender."""

import os
from typing import Any

from efficientids_flax.core.models import EfficientIDSModel


def open_recommender(
    path: str | os.PathLike[str],
    clustering: str | os.PathLike[str] | None = None,
    dtype: str | None = None,
) -> tuple[EfficientIDSModel, dict[str, Any]]:
    """(model, parameters) of a recommender.

    Args:
        path, clustering, dtype: see `stored.load_model`.

    Raises:
        ValueError: the model is of another kind.
        FileNotFoundError, MemoryError: see `stored.load_model`.
    """
    from efficientids_flax import stored
    from efficientids_flax.backbone import Decoder
    from efficientids_flax.forecast import TimesFM

    model, params, _ = stored.load_model(path, clustering, dtype=dtype)
    if isinstance(model, Decoder | TimesFM):
        kind = "language model" if isinstance(model, Decoder) else "forecaster"
        raise ValueError(f"{path}: is a {kind}; it has no items to recommend")
    return model, params
