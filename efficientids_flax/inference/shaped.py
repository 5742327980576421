"""A ranker with few shapes, all compiled before the first question, so that nothing compiles later.

Letters: B histories, T positions, X excluded items, C candidates, I items, k items found.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.config import EfficientIDSConfig
from efficientids_flax.core.head.search import score, search
from efficientids_flax.inference.around import history_lengths, positions
from efficientids_flax.inference.programs import Model, queries_at
from efficientids_flax.inference.prompts import lay_out
from efficientids_flax.inference.ranker import Ranker, Recommendations

STEP = 4  # from one compiled size to the next: few of them, and not too much padding
FEW, RARE = (1, 2, 4, 8, 16), 8
AT_ONCE = 4  # compilations
TIMES = 4  # that each shape runs before the first question


class Sizes(NamedTuple):
    """How much one compiled search is for.

    Attributes:
        k: items found.
        excluded: X, items left out of one history.
        own: whether each history has its own sets, instead of all sharing the first one's.
    """

    k: int
    excluded: int
    own: bool

    def hold(self, other: Sizes) -> bool:
        """Whether these sizes are large enough for others."""
        return self.k >= other.k and self.excluded >= other.excluded and self.own >= other.own


@dataclass(frozen=True)
class Shapes:
    """The shapes to compile.

    Attributes:
        rows: values of B, ascending.
        rare: those of `rows` that are also compiled for rare requests: the last of `searches`, and
            scores.
        lengths: numbers of ids of a history, ascending.
        searches: sizes of searches, the cheapest first; the last one is enough for all requests.
        candidates: C.
    """

    rows: tuple[int, ...]
    rare: tuple[int, ...]
    lengths: tuple[int, ...]
    searches: tuple[Sizes, ...]
    candidates: int


def shapes_for(
    config: EfficientIDSConfig, *, rows: int, history: int, searches: Sequence[Sizes],
    candidates: int,
) -> Shapes:  # fmt: skip
    """Shapes for up to `rows` histories at once, of up to `history` ids."""
    # For few histories, many sizes: each number of them then has a nearly full shape.
    sizes = sorted({size for size in FEW if size < rows} | {rows})
    while sizes[-2:-1] and sizes[-1] > STEP * sizes[-2]:
        sizes.insert(-1, STEP * sizes[-2])
    rare = sorted({1, rows} | ({RARE} if rows > RARE else set()))
    lengths = history_lengths(config, history, STEP)
    return Shapes(tuple(sizes), tuple(rare), lengths, tuple(searches), candidates)


class Question(NamedTuple):
    """One history, of items that the model has.

    Attributes:
        ids: the last ids of the history, as many as are used.
        items: 1 where they are items, 0 where they are words; None: all are items.
        k: number of items to return.
        excluded: items that must not be returned, including the history's if these are unwanted.
        needed, unwanted: bits of sets: items must be in all of the first, and in none of the last.
        candidates: items to score; None: find the best items.
    """

    ids: Sequence[int]
    items: Sequence[int] | None = None
    k: int = 1
    excluded: Sequence[int] = ()
    needed: int = 0
    unwanted: int = 0
    candidates: Sequence[int] | None = None


class ShapedRanker:
    """Answers questions with functions compiled for `Shapes`; larger questions are an error.

    Args:
        ranker: the model, its parameters and its index.
        shapes: to compile.
        like: a ranker that may have compiled the same already.
        tell: called with the number of compiled functions, and of all.

    Attributes:
        compiled: number of functions compiled here, not taken from `like`.
        seconds: B -> time of the usual search for this many long histories.
    """

    def __init__(
        self,
        ranker: Ranker,
        shapes: Shapes,
        like: ShapedRanker | None = None,
        tell: Callable[[int, int], None] = lambda done, of: None,
    ) -> None:
        self.ranker, self.shapes = ranker, shapes
        self.config = ranker.model.config
        self.compiled = 0
        self._kind = ranker.model, shapes, _avals((ranker.params, ranker.index))
        if like is not None and like._kind == self._kind:
            self._functions = like._functions
        else:
            self._functions = self._compile(tell)
        self.seconds = self._measured()

    def find(self, questions: Sequence[Question], sets: jax.Array) -> Recommendations:
        """The best items. Rows are as long as the largest k; use the first k of each question.

        Args:
            questions: at most as many as the largest of `Shapes.rows`.
            sets: from `memberships`.

        Raises:
            KeyError: a question exceeds the compiled sizes.
        """
        first = questions[0]
        wanted = Sizes(
            max(one.k for one in questions),
            max(len(one.excluded) for one in questions),
            any((one.needed, one.unwanted) != (first.needed, first.unwanted) for one in questions),
        )
        sizes = next((size for size in self.shapes.searches if size.hold(wanted)), None)
        if sizes is None:
            raise KeyError(f"{wanted}: expected at most {self.shapes.searches[-1]}")
        rare = sizes != self.shapes.searches[0]
        query, words, rows = self._queries(questions, self.shapes.rare if rare else None)
        excluded = np.full((rows, sizes.excluded), -1, np.int32)
        bits = np.zeros((2, rows), np.uint32)
        for row, one in enumerate(questions):
            excluded[row, : len(one.excluded)] = one.excluded
            bits[:, row] = one.needed, one.unwanted
        found = self._functions["find", rows, sizes](
            self.ranker.index, query, words, excluded, sets, *bits
        )
        ids, scores = (np.asarray(part)[: len(questions)] for part in found)
        return Recommendations(ids, scores)

    def score(self, questions: Sequence[Question]) -> np.ndarray:
        """Log-probabilities of the candidates, float32 [B, C], padded with -inf."""
        query, words, rows = self._queries(questions, self.shapes.rare)
        ids = np.full((rows, self.shapes.candidates), -1, np.int32)
        for row, one in enumerate(questions):
            given = one.candidates or ()
            ids[row, : len(given)] = given
        found = self._functions["score", rows](self.ranker.index, query, words, ids)
        return np.asarray(found)[: len(questions)]

    def together(self, waiting: int) -> int:
        """How many of the waiting questions to answer in one call.

        If time is proportional to the rows of a shape, as on CPUs, a half-empty larger shape would
        be slower than a full smaller one.
        """
        rows = max(self.seconds, key=lambda size: (min(size, waiting) / self.seconds[size], size))
        return min(rows, waiting)

    def memberships(self, sets: Mapping[int, np.ndarray]) -> jax.Array:
        """Encode sets of items (bit -> items) as bit masks, uint32 [I] on the device."""
        bits = np.zeros(self.config.num_items, np.uint32)
        for bit, items in sets.items():
            bits[items] |= np.uint32(1 << bit)
        return jax.device_put(bits)

    def _measured(self) -> dict[int, float]:
        """Time of each shape, the minimum of a few runs to ignore other load on the machine."""
        nothing, found = self.memberships({}), {}
        for rows in self.shapes.rows:
            questions = [Question([0] * self.shapes.lengths[-1])] * rows
            times = []
            for _ in range(TIMES):
                start = time.perf_counter()
                self.find(questions, nothing)
                times.append(time.perf_counter() - start)
            found[rows] = min(times)
        return found

    def _queries(
        self, questions: Sequence[Question], among: Sequence[int] | None = None
    ) -> tuple[Any, Any, int]:
        """(query, logits of words, B) of the smallest compiled shape that holds all."""
        rows = next(size for size in among or self.shapes.rows if size >= len(questions))
        longest = max(len(one.ids) for one in questions)
        length = next(size for size in self.shapes.lengths if size >= longest)
        histories = [
            (one.ids, [1] * len(one.ids) if one.items is None else one.items) for one in questions
        ]
        shape = rows, positions(self.config, length)
        prompts = lay_out(self.config, histories, [()] * len(questions), shape, 0)
        run = self._functions["queries", rows, length]
        return *run(self.ranker.params, prompts.batch, prompts.last), rows

    def _compile(self, tell: Callable[[int, int], None]) -> dict[Any, Any]:
        """All functions of the shapes, by their names."""
        model: Model = self.ranker.model
        lowered: dict[Any, Callable[[], Any]] = {}
        query = words = None
        for rows in self.shapes.rows:
            for length in self.shapes.lengths:
                shape = rows, positions(self.config, length)
                prompts = lay_out(self.config, [], [], shape, 0)
                given = self.ranker.params, prompts.batch, prompts.last
                run = jax.jit(partial(queries_at, model))
                lowered["queries", rows, length] = partial(run.lower, *_avals(given))
                query, words = jax.eval_shape(partial(queries_at, model), *given)
            asked = _avals(self.ranker.index), query, words
            numbers = partial(jax.ShapeDtypeStruct, dtype=jnp.int32)
            bits = partial(jax.ShapeDtypeStruct, dtype=jnp.uint32)
            rare = rows in self.shapes.rare
            for sizes in self.shapes.searches if rare else self.shapes.searches[:1]:
                find = jax.jit(partial(_find, sizes, self.config.soft_cap_logits))
                lowered["find", rows, sizes] = partial(
                    find.lower, *asked, numbers((rows, sizes.excluded)),
                    bits((self.config.num_items,)), bits((rows,)), bits((rows,)),
                )  # fmt: skip
            if not rare:
                continue
            rate = jax.jit(partial(_score, self.config.soft_cap_logits))
            candidates = numbers((rows, self.shapes.candidates))
            lowered["score", rows] = partial(rate.lower, *asked, candidates)

        made = {}
        with ThreadPoolExecutor(AT_ONCE) as threads:
            for name, function in threads.map(_built, lowered.items()):
                made[name] = function
                tell(len(made), len(lowered))
        self.compiled = len(made)
        return made


def _built(item: tuple[Any, Callable[[], Any]]) -> tuple[Any, Any]:
    """A name, and its function compiled."""
    return item[0], item[1]().compile()


def _find(
    sizes: Sizes,
    soft_cap: float | None,
    index: Any,
    query: jax.Array,
    words: jax.Array | None,
    excluded: jax.Array,
    sets: jax.Array,
    needed: jax.Array,
    unwanted: jax.Array,
) -> Any:
    """The search of one compiled function; `needed` and `unwanted` are uint32 [B]."""
    if sizes.own:
        sets, needed, unwanted = sets[None], needed[:, None], unwanted[:, None]
    else:
        needed, unwanted = needed[0], unwanted[0]
    allowed = ((sets & needed) == needed) & ((sets & unwanted) == 0)
    return search(
        index, query, sizes.k, kind="log_probs", soft_cap=soft_cap, word_logits=words,
        exclude=excluded, allowed=allowed,
    )  # fmt: skip


def _score(
    soft_cap: float | None, index: Any, query: jax.Array, words: jax.Array | None, ids: jax.Array
) -> jax.Array:
    return score(index, query, ids, kind="log_probs", soft_cap=soft_cap, word_logits=words)


def _avals(tree: Any) -> Any:
    """Shapes and dtypes of arrays."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)
