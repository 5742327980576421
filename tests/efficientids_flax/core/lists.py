"""Ranks from a list of the best items, as the real system records them."""

from typing import Any

import numpy as np

from efficientids_flax.core.metrics import NEVER


def places_in(top: Any, labels: Any) -> np.ndarray:
    """Where each label [B, T] stands in its list [B, T, k], best first: int32 [B, T], from 0."""
    labels = np.asarray(labels)[..., None]
    found = (np.asarray(top) == labels) & (labels >= 0)  # -1 fills lists that are too short
    return np.where(found.any(-1), found.argmax(-1), NEVER).astype(np.int32)
