"""A position in the training data that a checkpoint can hold.

If the iterator has `get_state` and `set_state` (Grain's, `ShuffledBatches`), its state is stored.
Otherwise the number of batches is stored; resuming reads that many from the start and drops them.
"""

import base64
import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from efficientids_flax.data.ahead import GrainIterator
from efficientids_flax.data.loader import Batches
from efficientids_flax.data.vocabularies import vocabularies
from efficientids_flax.train.batches import (
    BatchIterator,
    ShuffledBatches,
    check_source,
    checked_batch,
    digest_of_batch,
    has_position,
)
from efficientids_flax.train.state.fingerprint import Facts, rows_of_all

Batch = dict[str, Any]
Source = Iterable[Any] | Callable[[], Iterable[Any]]
FIRST, LAST, NUMBER = "first_batch", "last_batch", "batches"
TELLING = (ShuffledBatches, BatchIterator, Batches, GrainIterator)
BY_BATCH = (FIRST, LAST, NUMBER)  # facts about the rows that depend on the batch size


class DataExhausted(ValueError):
    """The data ended, and cannot be read again."""


class DataCursor:
    """Reads batches; starts again after the last one, if the source can be opened again.

    Attributes:
        source: an iterable of batches, an iterator, or a function that returns one of them.
        consumed: batches read so far.
    """

    def __init__(self, source: Source) -> None:
        check_source(source, "data")
        self.source = source
        self.consumed = 0
        self._epoch = 0
        self._read = 0  # batches of this epoch
        self._iterator = self._open()
        self._first: dict[str, Any] | None = None  # facts of the first batch
        self._last: Any = None  # the last batch
        self._facts: Facts | None = None
        self._reading, self._unused = False, 0

    def __next__(self) -> Batch:
        """The next batch; starts again after the last one.

        Raises:
            DataExhausted: there is none, and the source is an iterator, which cannot start again.
        """
        self._reading = True
        try:
            batch: Any = checked_batch(next(self._iterator), "data")
        except StopIteration:
            self._reading = False
            if not self._read or self._once():
                raise DataExhausted(f"the data ended after {self.consumed} batches") from None
            self._epoch += 1
            self._read = 0
            self._iterator = self._open()
            return next(self)
        self._read += 1
        self.consumed += 1
        if self.consumed == 1:
            self._first = _facts_of(batch)
        self._reading, self._last = False, batch
        return batch

    def renewed(self) -> "DataCursor":
        """This cursor; if reading was interrupted, a new one that goes to the same position.

        (An interrupted generator has ended, which looks like the end of an epoch.)
        """
        if self._once() or not (self._reading or self._unused):
            return self
        found = DataCursor(self.source)
        found.restore(self.state())
        return found

    def put_back(self, batches: int) -> None:
        """Set the position back before the last batches, which were read but not used."""
        self._unused = batches

    def state(self) -> dict[str, Any]:
        """The position, as JSON values, and facts about the data, see `facts`.

        An iterator that was interrupted while reading, or whose last batch was not used, may be one
        batch ahead. Then its own state is left out, and resuming reads from the start.
        """
        used = self.consumed - self._unused
        found = {"consumed": used, "epoch": self._epoch, "read": self._read}
        facts = self.facts()
        if not (self._reading or self._unused):
            if has_position(self._iterator):
                found["iterator"] = to_json(self._iterator.get_state())  # type: ignore[attr-defined]
            facts = self.facts_here()
        if not self._epoch and "rows" in facts:  # a list may get more batches before its end
            rows = {name: told for name, told in facts["rows"].items() if name != NUMBER}
            facts = {**facts, "rows": rows}
        return {**found, "facts": facts}

    def facts(self) -> Facts:
        """Facts that identify the data, if known: its rows, the batch size, the tokenizer."""
        if self._facts is None:
            found = _told(self._iterator)
            words = words_of(self.source, found)
            if isinstance(self.source, list | tuple):
                found = {"rows": {NUMBER: len(self.source)}}
            first = self._first or {}
            if "rows" in first and "rows" in found:  # read from the start, both are known
                found["rows"] = {**found["rows"], **first["rows"]}
            self._facts = {**first, **found, **({"tokenizer": words} if words else {})}
        return self._facts

    def facts_here(self) -> Facts:
        """`facts`, and the digest of the last batch, if resuming reads it again."""
        facts = self.facts()
        if self._last is None or has_position(self._iterator):
            return facts
        rows = {**facts.get("rows", {}), LAST: digest_of_batch(self._last)}
        return {**facts, "rows": {name: told for name, told in rows.items() if told is not None}}

    def restore(self, state: dict[str, Any]) -> None:
        """Go to a position from `state()`; this cursor must not have read anything yet.

        If the batch size has changed, and batches are read again from the start, it stops before
        the batch that contains the first unread row.

        Raises:
            DataExhausted: the data is shorter than it was.
        """
        if "iterator" in state and has_position(self._iterator):
            self._look_at_first()
            self._iterator.set_state(from_json(state["iterator"]))  # type: ignore[attr-defined]
            self._epoch, self._read = state["epoch"], state["read"]
            self.consumed = state["consumed"]
            return
        wanted = state["consumed"]
        then = state.get("facts", {}).get("batch_size", {}).get("rows")
        while self.consumed < wanted:
            next(self)
            now = self.facts().get("batch_size", {}).get("rows") if self.consumed == 1 else None
            if then and now and now != then:
                wanted = max(wanted * then // now, 1)

    def _look_at_first(self) -> None:
        """Take the facts of the first batch; the iterator's state is to be set afterwards."""
        own = isinstance(self._iterator, GrainIterator)  # whose workers need not be started
        first = self._iterator.batches.first() if own else next(self._iterator, None)  # pyright: ignore[reportAttributeAccessIssue]
        if first is not None:
            self._first = _facts_of(checked_batch(first, "data"))

    def _open(self) -> Iterator[Any]:
        return iter(self.source() if callable(self.source) else self.source)

    def _once(self) -> bool:
        """Whether the source is its own iterator, so that it can be read only once."""
        return self._iterator is self.source


class PeekedCursor(DataCursor):
    """A cursor whose next batch can be inspected.

    Attributes:
        batch: the next batch; None once it was returned.
    """

    def __init__(self, cursor: DataCursor) -> None:
        """Look at the next batch.

        Raises:
            ValueError: there is none.
        """
        self._cursor, self._waiting, self._before = cursor, True, cursor.consumed
        try:
            self.batch: Any = next(cursor)
        except DataExhausted as end:
            raise ValueError(f"train_dataset: {end}; there is none to train on") from None

    def __next__(self) -> Any:
        if self._waiting:
            self._waiting = False
            batch, self.batch = self.batch, None
            return batch
        return next(self._cursor)

    def used(self, batches: int) -> None:
        """Set the position to that many batches after the creation of this cursor."""
        self._cursor.put_back(self._cursor.consumed - self._before - batches)


def words_of(source: Source, told: Facts | None = None) -> dict[str, Any]:
    """The fact about the data's tokenizer, if known; empty for data without one.

    Args:
        source: the data.
        told: the data's own facts, if known already.
    """
    told = _told(source) if told is None else told
    return {**vocabularies(source), **told.get("tokenizer", {})}


def _told(data: Any) -> Facts:
    """The facts that data of this package gives about itself."""
    return data.fingerprint() if isinstance(data, TELLING) else {}


def _facts_of(batch: Any) -> Facts:
    """Facts of the first batch: digest of its values, and its rows over all processes."""
    rows = rows_of_all(batch)
    found: Facts = {} if rows is None else {"batch_size": {"rows": rows}}
    if told := digest_of_batch(batch):
        found["rows"] = {FIRST: told}
    return found


def to_json(value: Any) -> Any:
    """An iterator's state as JSON values; bytes and arrays are wrapped.

    Raises:
        TypeError: a value of another type.
    """
    if isinstance(value, dict):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"state of the data iterator: key {wrong[0]!r}, expected strings")
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, bytes):
        return {"__bytes__": base64.b64encode(value).decode()}
    if isinstance(value, np.ndarray):
        file = io.BytesIO()
        np.save(file, value, allow_pickle=False)
        return {"__array__": base64.b64encode(file.getvalue()).decode()}
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(
        f"state of the data iterator: a {type(value).__name__}, expected JSON values, bytes or"
        " arrays"
    )


def from_json(value: Any) -> Any:
    """Inverse of `to_json`; tuples come back as lists."""
    if isinstance(value, dict):
        if set(value) == {"__bytes__"}:
            return base64.b64decode(value["__bytes__"])
        if set(value) == {"__array__"}:
            content = base64.b64decode(value["__array__"])
            return np.load(io.BytesIO(content), allow_pickle=False)
        return {key: from_json(item) for key, item in value.items()}
    return [from_json(item) for item in value] if isinstance(value, list) else value
