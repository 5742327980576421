"""An export that is ready to answer: its compiled ranker, and its catalogue."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from efficientids_flax.config import EfficientIDSConfig
from efficientids_flax.core.models import EfficientIDSModel
from efficientids_flax.data.prepared import check_catalogue
from efficientids_flax.inference import (
    Ranker,
    ShapedRanker,
    Sizes,
    most_history,
    open_recommender,
    shapes_for,
    trained_history,
)
from efficientids_flax.serve.answers.catalogue import Catalogue, read_catalogue
from efficientids_flax.serve.limits import Limits
from efficientids_flax.stored import ItemWords, read_prompted

USUAL_K, USUAL_EXCLUDED = 24, 64  # most requests are within these; they get a cheaper search
UNKNOWN_LENGTH = 256  # length of histories if the length in training is unknown


@dataclass(frozen=True)
class Source:
    """Where an export is loaded from, at the start and at each reload.

    Attributes:
        path: path of a converted or exported recommender.
        clustering: see `stored.load_model`.
        items: see `read_catalogue`.
        dtype: dtype of the computation; None: as configured.
        max_history: number of latest ids of a history that are used; None: as many as in training.
    """

    path: str
    clustering: str | None = None
    items: str | None = None
    dtype: str | None = None
    max_history: int | None = None


class Export(NamedTuple):
    """A model that answers.

    Attributes:
        ranker: the model, with all functions compiled.
        catalogue: ids and titles of its items.
        max_history: number of latest ids of a prompt that are used.
        words: words put around the items of a history; None: there are none.
    """

    ranker: ShapedRanker
    catalogue: Catalogue
    max_history: int
    words: ItemWords | None = None

    def asked(self, ids: list[int], mask: list[int] | None) -> tuple[list[int], list[int] | None]:
        """The prompt (ids, item mask) for what follows a history, in the form used in training.

        Args:
            ids: items, oldest first; with a mask, words and items, which are used as they are.
            mask: 1 for an item, 0 for a word; None: all are items.
        """
        if mask is None and self.words is not None:
            ids, mask = self.words.around(ids[-self.words.items :])
        last = self.max_history
        return ids[-last:], None if mask is None else mask[-last:]


def load_export(
    source: Source,
    limits: Limits,
    like: Export | None = None,
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> Export:
    """Load and compile a model.

    Args:
        source: what to load.
        limits: limits of requests; the compiled shapes follow from them.
        like: an earlier export; its compiled functions are reused if the models are the same.
        tell: see `ShapedRanker`.

    Raises:
        FileNotFoundError, ValueError, MemoryError: naming what is wrong.
    """
    model, params = open_recommender(source.path, source.clustering, source.dtype)
    if like is not None:
        model = _same(model, like.ranker.ranker.model)
    config = model.config
    prompted = read_prompted(source.path, config)
    used = _used(source, config)
    catalogue = read_catalogue(config.num_items, source.path, source.items)
    tables = model.clustering_info
    if tables is not None and (theirs := tables.catalogue) is not None:
        where = source.path if source.items is None else source.items
        check_catalogue(
            f"the clustering of {source.path}", theirs, tables.num_items, where, catalogue.digest(),
            catalogue.num_items,
        )  # fmt: skip
    every = Sizes(min(limits.max_k, config.num_items), limits.max_length + limits.max_exclude, True)
    excluded = min(max(USUAL_EXCLUDED, used), every.excluded)
    usual = Sizes(min(USUAL_K, every.k), excluded, False)
    shapes = shapes_for(
        config,
        rows=limits.max_batch,
        history=used,
        searches=(usual, every),
        candidates=limits.max_candidates,
    )
    ranker = Ranker(model, params)
    return Export(
        ShapedRanker(ranker, shapes, None if like is None else like.ranker, tell), catalogue, used,
        None if prompted is None else prompted.words,
    )  # fmt: skip


def _same(model: EfficientIDSModel, other: Any) -> EfficientIDSModel:
    """`other` if both are the same. JAX takes clusterings that were read twice as different."""
    tables, known = model.clustering_info, other.clustering_info
    if tables is None or known is None or tables.digest() != known.digest():
        return other if model == other else model
    return other if model.clone(clustering_info=known) == other else model


def _used(source: Source, config: EfficientIDSConfig) -> int:
    """How many ids of a history are used."""
    room = most_history(config)
    if source.max_history is not None:
        if room is not None and source.max_history > room:
            raise ValueError(
                f"max_history: found {source.max_history}, the positions of {source.path} have room"
                f" for {room}"
            )
        return source.max_history
    trained = trained_history(config)
    if trained is not None:
        return trained if room is None else min(trained, room)
    used = UNKNOWN_LENGTH if room is None else min(UNKNOWN_LENGTH, room)
    warnings.warn(
        f"{source.path}: does not say how long the histories were that it was trained on: the last "
        f"{used} ids of a history are used (`max_history` takes more or fewer)",
        stacklevel=3,
    )
    return used
