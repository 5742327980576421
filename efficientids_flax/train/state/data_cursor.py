"""A position in the training data that a checkpoint can hold.

Where the iterator has `get_state` and `set_state` (Grain's, `ShuffledBatches`), its state is kept;
otherwise the number of batches, and going on reads that many from the start and drops them.
"""

import base64
import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import numpy as np

from efficientids_flax.train.batches import checked_batch, digest_of_batch
from efficientids_flax.train.state.description import vocabularies
from efficientids_flax.train.state.fingerprint import Facts, rows_of_all

Batch = dict[str, Any]
Source = Iterable[Any] | Callable[[], Iterable[Any]]


class DataExhausted(ValueError):
    """The data ended, and cannot be read again."""


class DataCursor:
    """Reads batches, over and over where the source can be opened again.

    Attributes:
        source: an iterable of batches, an iterator, or a function that returns one of them.
        consumed: batches read so far.
    """

    def __init__(self, source: Source) -> None:
        if not callable(source) and not isinstance(source, Iterable):
            raise TypeError(
                f"data: expected batches to iterate over, or a function that returns them; found a"
                f" {type(source).__name__}"
            )
        self.source = source
        self.consumed = 0
        self._epoch = 0
        self._read = 0  # batches of this epoch
        self._iterator = self._open()
        self._first: dict[str, Any] | None = None  # facts of the first batch
        self._facts: Facts | None = None
        self._reading, self._unused = False, 0
        self._ahead: list[Batch] = []  # counted as read, not handed out

    def __next__(self) -> Batch:
        """The next batch; begins anew after the last one.

        Raises:
            DataExhausted: there is none, and the source is an iterator that was read to its end.
        """
        if self._ahead:
            return self._ahead.pop(0)
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
        self._reading = False
        return batch

    def renewed(self) -> "DataCursor":
        """This cursor, or one at its place that reads from the start, if reading was broken off.

        A generator that was interrupted has ended, and looks like the end of an epoch.
        """
        if self._once() or not (self._reading or self._unused or self._ahead):
            return self
        found = DataCursor(self.source)
        found.restore(self.state())
        return found

    def put_back(self, batches: int) -> None:
        """The last batches were read and not used: the position is that before them."""
        self._unused = batches

    def state(self) -> dict[str, Any]:
        """The position, as JSON values; and what the data is, see `facts`.

        An iterator that was interrupted while it was reading may be a batch ahead, and so is one
        whose batch was not used: its own state is left out, and going on reads from the start.
        """
        unused = self._unused + len(self._ahead)
        used = self.consumed - unused
        found = {"consumed": used, "epoch": self._epoch, "read": self._read}
        if hasattr(self._iterator, "get_state") and not (self._reading or unused):
            found["iterator"] = to_json(self._iterator.get_state())  # type: ignore[attr-defined]
        return {**found, "facts": self.facts()}

    def facts(self) -> Facts:
        """What the data is: its rows, their number in a batch, the tokenizer, as far as known."""
        if self._facts is None:
            found = _told(self._iterator)
            words = words_of(self.source, found)
            first = self._first or {}
            if "rows" in first and "rows" in found:  # read from the start, both are known
                found["rows"] = {**first["rows"], **found["rows"]}
            self._facts = {**first, **found, **({"tokenizer": words} if words else {})}
        return self._facts

    def restore(self, state: dict[str, Any]) -> None:
        """Go to a position of `state()`; this cursor has read nothing yet.

        Where batches have another number of rows than they had, and are read again from the start,
        it stands before the batch that has the first row that was not read.

        Raises:
            DataExhausted: the data is shorter than it was.
        """
        if "iterator" in state and hasattr(self._iterator, "set_state"):
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

    def look_ahead(self, then: Facts) -> None:
        """After `restore`: learn from the next batch what the first ones did not tell.

        An iterator that went to its place by itself does not read the first batch again, so that
        its values count as they were. A batch that is smaller than they were may be the last of an
        epoch: the one after it tells.

        Args:
            then: facts of the checkpoint.
        """
        if self._first is not None or "batch_size" not in then:
            return
        self._first = {name: then[name] for name in ("rows",) if name in then}
        try:
            ahead = [next(self)]
            if (rows_of_all(ahead[0]) or 0) < then["batch_size"]["rows"]:
                ahead.append(next(self))
        except DataExhausted:
            return
        self._ahead = ahead
        self._first["batch_size"] = {"rows": max(rows_of_all(batch) or 0 for batch in ahead)}
        self._facts = None

    @property
    def before(self) -> int:
        """Batches that were handed out."""
        return self.consumed - len(self._ahead)

    def _open(self) -> Iterator[Any]:
        return iter(self.source() if callable(self.source) else self.source)

    def _once(self) -> bool:
        """Whether what was read is gone: the source is its own iterator."""
        return self._iterator is self.source


class PeekedCursor(DataCursor):
    """A cursor whose next batch has been looked at.

    Attributes:
        batch: the next batch; None when it has been handed out.
    """

    def __init__(self, cursor: DataCursor) -> None:
        """Look at the next batch.

        Raises:
            ValueError: there is none.
        """
        self._cursor, self._waiting, self._before = cursor, True, cursor.before
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
        """The run goes on after that many batches since this cursor was made, not after others."""
        self._cursor.put_back(self._cursor.before - self._before - batches)


def words_of(source: Source, told: Facts | None = None) -> dict[str, Any]:
    """What is known of the tokenizer of some data, as a fact of it; nothing of data without one.

    Args:
        source: the data.
        told: what it tells of itself, where that is known.
    """
    told = _told(source) if told is None else told
    return {**vocabularies(source), **told.get("tokenizer", {})}


def _told(data: Any) -> Facts:
    """What data tells of itself."""
    told = getattr(data, "fingerprint", None)
    return cast(Facts, told()) if callable(told) else {}


def _facts_of(batch: Any) -> Facts:
    """Of the first batch: its values, and its rows of all processes together."""
    rows = rows_of_all(batch)
    found: Facts = {} if rows is None else {"batch_size": {"rows": rows}}
    if told := digest_of_batch(batch):
        found["rows"] = {"first_batch": told}
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
