"""Evaluation data: batches that end, have each row once, and can be read again each time."""

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import length_hint
from types import GeneratorType
from typing import Any

import jax
import numpy as np

from efficientids_flax.data import Batches
from efficientids_flax.data.ahead import GrainIterator
from efficientids_flax.data.repeats import RepeatGuard
from efficientids_flax.digests import digest_of
from efficientids_flax.train.batches import (
    BatchIterator,
    ShuffledBatches,
    check_source,
    checked_batch,
    digest_of_batch,
    has_position,
    rows_of,
)
from efficientids_flax.train.options import TrainingOptions

Source = Iterable[Any] | Callable[[], Iterable[Any]]
ENDLESS = (
    "the batches have no end: give num_eval_batches, or batches that end (of ShuffledBatches and"
    " Batches every row is read once, whatever their epochs)"
)
SIZED = (list, tuple, itertools.repeat)  # these end: an endless `repeat` is refused before
ORDER = ("shuffle", "drop_remainder", "order", "seed")  # facts about the order, not about the rows
OWN, READERS = (ShuffledBatches, Batches), (BatchIterator, GrainIterator)
ONCE = (GeneratorType, map, filter, zip, enumerate, itertools.chain, itertools.islice)


class EvaluationData:
    """Batches that are read from the start each time.

    Of `ShuffledBatches` and `Batches`, endless or not, every row is read once, including an
    incomplete last batch.

    Attributes:
        name: name of the data, for messages.
    """

    def __init__(
        self,
        source: Source,
        num_batches: int | None = None,
        name: str = "evaluation",
        *,
        fills: bool = True,
    ) -> None:
        """Reads nothing yet.

        Args:
            source: an iterable of batches, or a function that returns one.
            num_batches: number of batches to read; None: all.
            name: name of the data, for messages.
            fills: whether the last batch may be padded with rows whose `weights` are 0. (Not for a
                caller's own loss function, which may ignore weights.)

        Raises:
            TypeError: the source is something else, such as a single batch.
            ValueError: the source is detectably endless; `num_batches` is below 1.
        """
        check_source(source, name)
        if num_batches is not None and num_batches < 1:
            raise ValueError(
                f"num_eval_batches: expected at least 1, or None for all, found {num_batches}"
            )
        self.name = name
        self._source, self._num_batches, self._fills = source, num_batches, fills
        self._told: Any = None  # the opened source, if it can describe its rows
        self._waiting: Any = None  # already opened, for the next reading
        # An iterator whose position can be set is always read from its present position.
        self._start: Any = _state_of(source) if not callable(source) else None
        self._check_ends(source)

    def __iter__(self) -> Iterator[Any]:
        """The batches, skipping those without rows."""
        waiting, self._waiting = self._waiting, None
        return self._read(self._open() if waiting is None else waiting)

    def _open(self) -> Any:
        """Open the source for a reading from its start."""
        source: Any = self._source
        if callable(source):
            source = source()
            self._check_ends(source)
        return source

    def _read(self, opened: Any) -> Iterator[Any]:
        if self._start is not None:
            opened.set_state(self._start)
        if isinstance(opened, READERS):
            opened = opened.batches
        if isinstance(opened, ShuffledBatches):
            batches: Iterator[Any] = opened.once()
        else:
            batches = opened.once(self._fills) if isinstance(opened, Batches) else iter(opened)
        ends = self._num_batches is not None or isinstance(opened, (*SIZED, *OWN))
        guard = None if ends else RepeatGuard()
        for given in itertools.islice(batches, self._num_batches):
            batch = checked_batch(given, self.name)
            if guard is not None and guard.repeats(batch):
                raise ValueError(
                    f"{self.name}: {guard.rows} rows were read, and they are the same"
                    f" {guard.distinct} over and over: {ENDLESS}"
                )
            if rows_of(batch) != 0:
                yield batch

    @property
    def nothing(self) -> str:
        """Message: there is no batch."""
        return f"{self.name}: has no batch with a row; there is nothing to evaluate on"

    def facts(self) -> dict[str, Any]:
        """Facts that identify the rows, if known; call `first` before. Reads all rows."""
        return _facts_of(self._told, self._num_batches)

    def first(self, required: bool = True) -> Any:
        """The first batch; None if there is none and none is required.

        If the source is a function that returns an iterator, it is called twice: the second result
        is kept for the next reading.

        Raises:
            ValueError: there is no batch; or the data can be read only once.
        """
        opened = self._open()
        self._check_again(opened)
        self._told = opened if isinstance(opened, (list, tuple, *OWN, *READERS)) else None
        for batch in self._read(opened):
            return batch
        if required:
            raise ValueError(self.nothing)
        return None

    def _check_again(self, opened: Any) -> None:
        """Raises ValueError if the batches can be read only once."""
        if isinstance(opened, (*OWN, *READERS)) or self._start is not None:
            return
        iterator, other = iter(opened), opened
        if callable(self._source) and iterator is opened:
            self._waiting = other = self._open()
        if iterator is not iter(other):
            return  # a new iterator each time
        self._waiting = None
        if not isinstance(iterator, ONCE):  # perhaps `iter` resets it
            first, again = next(iterator, None), next(iter(other), None)
            if first is not None and again is not None and _equal(first, again):
                return
        raise ValueError(
            f"{self.name}: found a {type(iterator).__name__}, which can be read once, and each"
            " evaluation reads from the start: give a list, a function that returns a new iterator"
            " each time, or ShuffledBatches"
        )

    def _check_ends(self, source: Any) -> None:
        if self._num_batches is None and _is_endless(source):
            raise ValueError(f"{self.name}: {ENDLESS}")


def evaluations(
    source: Source | None, options: TrainingOptions, *, fills: bool = True
) -> EvaluationData | None:
    """The data of a run's evaluations; None if the run makes none.

    Args:
        source: given by the caller; None: no evaluation data.
        options: options of the run.
        fills: see `EvaluationData`.

    Raises:
        TypeError, ValueError: see `EvaluationData`; or early stopping or `keep_best` needs
            evaluations, and there are none.
    """
    wanted = [
        name for name in ("early_stopping_patience", "keep_best") if getattr(options, name)
    ]  # fmt: skip
    missing = "there is no evaluation data (eval_dataset, or data.eval_iter_fn)"
    if source is not None:
        missing = "" if options.evaluates_every else "eval_every is 0: there are no evaluations"
    if wanted and missing:
        named = " and ".join(wanted)
        given = "some" if source is None else "it"
        raise ValueError(f"{named}: {missing} to go by; give {given}, or leave {named} out")
    if source is None or missing or not options.evaluates_every:
        return None
    return EvaluationData(source, options.num_eval_batches, "eval_dataset", fills=fills)


def _facts_of(source: Any, num_batches: int | None) -> dict[str, Any]:
    """Facts about the rows, whatever their order; nothing if processes share the data."""
    if jax.process_count() > 1:
        return {}
    if isinstance(source, list | tuple):
        read = [checked_batch(one, "evaluation") for one in source[:num_batches]]
        return {"batches": len(source), "values": digest_of(list(map(digest_of_batch, read)))}
    if not isinstance(source, (*OWN, *READERS)):
        return {}
    rows = source.fingerprint()["rows"]
    return {name: value for name, value in rows.items() if name not in ORDER}


def _is_endless(source: Any) -> bool:
    """Whether the source is known never to end."""
    if isinstance(source, itertools.cycle | itertools.count):
        return True
    if isinstance(source, itertools.repeat):
        return length_hint(source, -1) < 0
    if isinstance(source, (*OWN, *READERS)):
        return False
    sampler = getattr(source, "_sampler", None)  # of Grain's DataLoader
    if sampler is not None and getattr(sampler, "_num_epochs", 1) is None:
        return True
    cardinality = getattr(source, "cardinality", None)  # of tf.data
    if callable(cardinality):
        try:
            return int(cardinality()) == -1  # pyright: ignore[reportArgumentType]
        except Exception:  # a method of another class and another sense
            return False
    parents = getattr(source, "parents", ())  # of Grain's MapDataset.repeat()
    above = parents if isinstance(parents, Sequence) else ()
    return any(_length(parent) >= sys.maxsize // 2 for parent in (source, *above))


def _length(source: Any) -> int:
    try:
        return len(source)
    except (TypeError, OverflowError, NotImplementedError):
        return 0


def _state_of(source: Any) -> Any:
    """The position of an iterator that can return to it, else None."""
    is_iterator = hasattr(source, "__next__") and not isinstance(source, READERS)
    if is_iterator and has_position(source):
        return source.get_state()
    return None


def _equal(left: Any, right: Any) -> bool:
    one, other = jax.tree.leaves(left), jax.tree.leaves(right)
    return len(one) == len(other) and all(map(np.array_equal, one, other))
