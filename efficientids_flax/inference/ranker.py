"""The best next items of histories.

    ids, scores = recommend(model, params, [[3, 17, 4]], k=10, exclude_seen=True)

Letters: B histories, T time, W width of query and tables, I items, K clusters, V words.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypedDict, Unpack

import jax
import numpy as np

from efficientids_flax.array_checks import as_numpy
from efficientids_flax.core.batch import check_batch
from efficientids_flax.inference.programs import Model, Scoring, best_items, index_of, queries_of
from efficientids_flax.inference.prompts import (
    History,
    Prompts,
    exclude_problems,
    make_prompts,
    padded_ids,
    raise_problems,
)
from efficientids_flax.stored import ItemWords

POSITIONS_AT_ONCE = 1 << 12  # most B x T in one call of the model


class Recommendations(NamedTuple):
    """Items, best first.

    Attributes:
        ids: int32 [B, k]; -1 if fewer than k items were left.
        scores: float32 [B, k]; -inf where the id is -1.
    """

    ids: np.ndarray
    scores: np.ndarray


class Filters(TypedDict, total=False):
    """Which items may be recommended, and how they are scored.

    Attributes:
        exclude_seen: exclude the items of the history, including those cut off by `max_history`.
        exclude: for each history, further ids to exclude.
        allowed: bool [I] or [B, I], items that may be recommended; None: all.
        scoring: 'log_probs': log-probability that the item comes next, with words in the
            denominator, as in the loss; 'original': the scores of the original's evaluation as
            configured (`use_correction`), which need not be probabilities.
        clusters: approximate search: only in this many clusters, the most promising ones; None:
            exact search.
    """

    exclude_seen: bool
    exclude: Sequence[History] | None
    allowed: np.ndarray | None
    scoring: Scoring
    clusters: int | None


class Options(Filters, total=False):
    """Further options for histories.

    Attributes:
        item_masks: for each history, 1 where it has an item, 0 where it has a word.
        max_history: use only this many of the last ids; None: as many as the model was trained on,
            with a warning if there are more, or all if that is unknown.
    """

    item_masks: Sequence[History | None] | None
    max_history: int | Sequence[int | None] | None


class Ranker:
    """A model ready to recommend: its items are mapped to the query's width once, and indexed.

    Everything is compiled once for each padded shape of the histories, see `make_prompts`.

    Args:
        model: from `load_model`.
        params: its parameters. Those that are on the host are moved to the default device, without
            a copy if that is the CPU: do not change them.
        words: words around the items of a history, from `stored.read_item_words`; needed if the
            model was trained on prompts with words.

    Attributes:
        index: index of the items for `core.head.search`; `core.head.item_vectors` makes vectors
            for other search engines of it.
    """

    def __init__(
        self, model: Model, params: Mapping[str, Any], words: ItemWords | None = None
    ) -> None:
        self.model, self.words = model, words
        self.params = jax.device_put(params)
        self.index = index_of(model, self.params)

    def recommend(
        self,
        histories: Sequence[History],
        k: int | Sequence[int] = 10,
        *,
        item_masks: Sequence[History | None] | None = None,
        max_history: int | Sequence[int | None] | None = None,
        **filters: Unpack[Filters],
    ) -> Recommendations:
        """The k best next items of each history; see the function `recommend`."""
        histories, seen = list(histories), filters.get("exclude_seen", False)
        prompts = self.prompts(histories, item_masks, max_history, with_seen=seen)
        return self.rank(prompts, k, count=len(histories), **filters)

    def prompts(
        self,
        histories: Sequence[History],
        item_masks: Sequence[History | None] | None = None,
        max_history: int | Sequence[int | None] | None = None,
        *,
        with_seen: bool = True,
    ) -> Prompts:
        """The model's input for each history, see `make_prompts`."""
        return make_prompts(
            self.model.config, histories, item_masks, max_history=max_history, words=self.words,
            with_seen=with_seen,
        )  # fmt: skip

    def queries(
        self,
        histories: Sequence[History],
        *,
        item_masks: Sequence[History | None] | None = None,
        max_history: int | Sequence[int | None] | None = None,
    ) -> np.ndarray:
        """Query vectors at the end of each history, float32 [B, W], to score items with.

        Args:
            histories, item_masks, max_history: see the function `recommend`.

        Raises:
            ValueError: naming ids that are out of range.
        """
        histories = list(histories)
        prompts = self.prompts(histories, item_masks, max_history)
        check_batch(self.model.config, prompts.batch)
        size = _rows_at_once(prompts)
        found = []
        for start in range(0, max(len(histories), 1), size):
            part = slice(start, start + size)
            batch = {name: value[part] for name, value in prompts.batch.items()}
            query = queries_of(self.model, self.params, batch, prompts.last[part])
            found.append(np.asarray(query, np.float32))
        return np.concatenate(found)[: len(histories)]

    def rank(
        self,
        prompts: Prompts,
        k: int | Sequence[int] = 10,
        *,
        count: int | None = None,
        exclude_seen: bool = False,
        exclude: Sequence[History] | None = None,
        allowed: np.ndarray | None = None,
        scoring: Scoring = "log_probs",
        clusters: int | None = None,
    ) -> Recommendations:
        """The k best next items for given prompts.

        Args:
            prompts: from `make_prompts`, or from `data.interleave.PromptBuilder.prompts`.
            count: B, the first rows of the prompts, to be answered; None: all.
            k: number of items, or one number for each row. Rows of the answer are as long as the
                largest, and padded with id -1 and score -inf.
            exclude_seen, exclude, allowed, scoring, clusters: see `Filters`.

        Raises:
            ValueError: naming what is out of range or does not fit.
        """
        rows = len(prompts.last)
        asked = rows if count is None else count
        if scoring not in ("log_probs", "original"):
            raise ValueError(f"scoring: expected log_probs or original, found {scoring!r}")
        items = self.model.config.num_items
        check_batch(self.model.config, prompts.batch)  # jit would take any id
        each = np.asarray(k).reshape(-1)
        if each.size != 1 and each.shape != (asked,):
            raise ValueError(
                f"k: found {each.size} numbers, expected one, or one for each of {asked} histories"
            )
        whole = each.dtype.kind in "iu"
        if wrong := [one.item() for one in each if not whole or not 1 <= one <= items]:
            found = f"found {wrong[0]!r}"
            raise ValueError(f"k: expected in [1, {items}], the number of items, {found}")
        if allowed is not None:
            allowed = _mask(allowed, (items,), (asked, items))
        left_out = prompts.seen if exclude_seen else prompts.seen[:, :0]
        if exclude is not None:
            left_out = np.concatenate([left_out, _padded(exclude, asked, rows, items)], axis=1)
        own = None  # what is allowed, of each row
        if allowed is not None and np.ndim(allowed) == 2:
            own, allowed = np.pad(allowed, ((0, rows - asked), (0, 0))), None
        size = _rows_at_once(prompts)
        found = []
        for start in range(0, max(asked, 1), size):
            part = slice(start, start + size)
            best = best_items(
                self.model,
                self.params,
                self.index,
                {name: value[part] for name, value in prompts.batch.items()},
                prompts.last[part],
                left_out[part] if left_out.shape[1] else None,
                allowed if own is None else own[part],
                k=int(each.max()) if each.size else 1,
                scoring=scoring,
                clusters=clusters,
            )
            # Wait for the results before the next call, which would otherwise run beside this one.
            found.append([np.asarray(values) for values in best])
        ids, scores = (np.concatenate(values)[:asked] for values in zip(*found, strict=True))
        if each.size > 1:
            beyond = np.arange(ids.shape[1]) >= each[:, None]
            ids, scores = np.where(beyond, np.int32(-1), ids), np.where(beyond, -np.inf, scores)
        return Recommendations(ids, scores)


def recommend(
    model: Model,
    params: Mapping[str, Any],
    histories: Sequence[History],
    k: int | Sequence[int] = 10,
    *,
    words: ItemWords | None = None,
    **options: Unpack[Options],
) -> Recommendations:
    """The k best next items of each history; exact, unless `clusters` limits the search.

    Maps the item table to the query's width at every call; a `Ranker` does so once for many calls.

    Args:
        model, params: from `load_model`.
        histories: B lists of item ids, oldest first; with `item_masks` words and items.
        k: how many items; a list has one number for each history, see `Ranker.rank`.
        words: see `Ranker`.
        **options: item_masks, max_history, see `Options`; exclude_seen, exclude, allowed, scoring,
            clusters, see `Filters`.

    Returns:
        Ids and scores, [B, k].

    Raises:
        ValueError: naming ids or a k out of range, or arguments that do not fit.
    """
    return Ranker(model, params, words).recommend(histories, k, **options)


def _rows_at_once(prompts: Prompts) -> int:
    """Rows in one call of the model, limited so that memory does not grow with their number."""
    length = prompts.batch["ids"].shape[1]
    return 1 << max(POSITIONS_AT_ONCE // length, 1).bit_length() - 1


def _mask(allowed: Any, *shapes: tuple[int, ...]) -> np.ndarray:
    """`allowed` as an array; raises ValueError for another shape, or ids in place of 0 and 1."""
    found = as_numpy(allowed, "allowed")
    if found.shape not in shapes:
        wanted = " or ".join(str(list(shape)) for shape in shapes)
        raise ValueError(f"allowed: found {list(found.shape)}, expected {wanted}")
    if found.dtype != bool and not np.isin(found, (0, 1)).all():
        raise ValueError("allowed: expected True or False for each item, found other numbers")
    return found


def _padded(lists: Sequence[History], wanted: int, rows: int, items: int) -> np.ndarray:
    """Lists of ids as int32 [rows, X], padded with -1.

    Raises:
        ValueError: numbers of lists and histories differ; ids are no items.
    """
    if len(lists) != wanted:
        raise ValueError(f"exclude: found {len(lists)} lists for {wanted} histories")
    raise_problems(exclude_problems(lists, items))
    return padded_ids(lists, rows)
