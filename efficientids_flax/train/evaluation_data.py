"""Batches of an evaluation: each row once, to an end, as often as evaluations are made."""

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import length_hint
from types import GeneratorType
from typing import Any

import jax
import numpy as np

from efficientids_flax.data import Batches
from efficientids_flax.data.ahead import GrainIterator
from efficientids_flax.data.repeats import RepeatGuard
from efficientids_flax.train.batches import (
    BatchIterator,
    ShuffledBatches,
    checked_batch,
    rows_of,
)
from efficientids_flax.train.options import TrainingOptions

Source = Iterable[Any] | Callable[[], Iterable[Any]]
ENDLESS = (
    "the batches have no end: give num_eval_batches, or batches that end (of ShuffledBatches and"
    " Batches every row is read once, whatever their epochs)"
)
SIZED = (list, tuple, itertools.repeat)  # an endless `repeat` is refused
ORDER = ("shuffle", "drop_remainder", "order")  # of a fingerprint, which says nothing of the rows
OWN, READERS = (ShuffledBatches, Batches), (BatchIterator, GrainIterator)
ONCE = (GeneratorType, map, filter, zip, enumerate, itertools.chain, itertools.islice)


class EvaluationData:
    """Batches that are read from the start each time.

    Of `ShuffledBatches` and `Batches`, endless or not, every row is read once, the last ones too.

    Attributes:
        name: of the data, for messages.
    """

    def __init__(
        self,
        source: Source,
        num_batches: int | None = None,
        name: str = "evaluation",
        *,
        fills: bool = True,
    ) -> None:
        """Nothing is read yet.

        Args:
            source: an iterable of batches, or a function that returns one.
            num_batches: how many are read; None: all.
            name: of the data, for messages.
            fills: whether the last batch may be filled up with rows whose `weights` are 0, which a
                loss function of the caller's may count.

        Raises:
            TypeError: something else, such as one batch.
            ValueError: batches that have no end, as far as that can be told; fewer than one.
        """
        if isinstance(source, Mapping):
            raise TypeError(f"{name}: found one batch, expected several: give a list, [batch]")
        if not callable(source) and not isinstance(source, Iterable):
            raise TypeError(
                f"{name}: found a {type(source).__name__}, expected batches to iterate over, or a"
                " function that returns them"
            )
        if num_batches is not None and num_batches < 1:
            raise ValueError(
                f"num_eval_batches: expected at least 1, or None for all, found {num_batches}"
            )
        self.name = name
        self._source, self._num_batches, self._fills = source, num_batches, fills
        self._told: Any = None  # what was opened, where it says what its rows are
        self._waiting: Any = None  # opened already, for the next reading
        # An iterator whose position can be set is read from where it stands now.
        self._start: Any = _state_of(source) if not callable(source) else None
        self._check_ends(source)

    def __iter__(self) -> Iterator[Any]:
        """The batches; those without a row are left out."""
        waiting, self._waiting = self._waiting, None
        return self._read(self._open() if waiting is None else waiting)

    def _open(self) -> Any:
        """What is iterated over, at its start."""
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
        """That there is no batch."""
        return f"{self.name}: has no batch with a row; there is nothing to evaluate on"

    def facts(self) -> dict[str, Any]:
        """What the rows are, once `first` has looked, as far as that can be told; reads all."""
        return _facts_of(self._told)

    def first(self, required: bool = True) -> Any:
        """The first batch; None without one, if none is required.

        A function is called once; a second time, if it returns an iterator, for the next reading.

        Raises:
            ValueError: there is none; or the data can be read only once.
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
        """Raises ValueError if the batches are gone once they are read."""
        if isinstance(opened, (*OWN, *READERS)) or self._start is not None:
            return
        iterator, other = iter(opened), opened
        if callable(self._source) and iterator is opened:
            self._waiting = other = self._open()
        if iterator is not iter(other):
            return  # a new one each time
        self._waiting = None
        if not isinstance(iterator, ONCE):  # perhaps one that `iter` sets back
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
    """The data of a run's evaluations; None where there are none to make.

    Args:
        source: of the caller; None: the run has none.
        options: of the run.
        fills: see `EvaluationData`.

    Raises:
        TypeError, ValueError: see `EvaluationData`; or the run goes by evaluations that are not
            made.
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


def _facts_of(source: Any) -> dict[str, Any]:
    """Of rows in any order; nothing of several processes' shares."""
    if jax.process_count() > 1:
        return {}
    if isinstance(source, list | tuple):
        return {"batches": len(source)}
    if not isinstance(source, (*OWN, *READERS)):
        return {}
    rows = source.fingerprint()["rows"]
    return {name: value for name, value in rows.items() if name not in ORDER}


def _is_endless(source: Any) -> bool:
    """Whether batches say of themselves that they never end."""
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
        except (TypeError, ValueError):
            return False
    parents = [source, *getattr(source, "parents", ())]  # of Grain's MapDataset.repeat()
    return any(_length(parent) >= sys.maxsize // 2 for parent in parents)


def _length(source: Any) -> int:
    try:
        return len(source)
    except (TypeError, OverflowError, NotImplementedError):
        return 0


def _state_of(source: Any) -> Any:
    """The position of an iterator that can go back to it, else None."""
    is_iterator = hasattr(source, "__next__") and not isinstance(source, READERS)
    if is_iterator and hasattr(source, "get_state") and hasattr(source, "set_state"):
        return source.get_state()
    return None


def _equal(left: Any, right: Any) -> bool:
    one, other = jax.tree.leaves(left), jax.tree.leaves(right)
    return len(one) == len(other) and all(map(np.array_equal, one, other))
