"""The interface of rows, and rows of arrays in memory."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from efficientids_flax.array_checks import as_numpy
from efficientids_flax.digests import digest

Arrays = dict[str, np.ndarray]


class Rows(ABC):
    """Rows of batches, all of one shape, in an order that does not change.

    Attributes:
        num_rows: N.
    """

    num_rows: int

    @abstractmethod
    def take(self, places: np.ndarray) -> Arrays:
        """The fields of some rows.

        Args:
            places: int [B], each in [0, N).

        Returns:
            Field -> [B, ...].
        """

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Facts that identify these rows, as JSON values; a resumed run compares them."""

    @property
    def words(self) -> str | None:
        """Digest of the tokens of all texts in the rows; None: there are no texts."""
        return None

    @property
    def first(self) -> np.ndarray:
        """int [1], the place of the first row."""
        return np.zeros(1, np.int64)

    @property
    def sizes(self) -> np.ndarray | None:
        """int32 [N], number of used positions of each row, from its beginning; None: all are."""
        return None

    @property
    def notes(self) -> tuple[str, ...]:
        """Messages for the user about how rows were made: what was left out, with counts."""
        return ()

    def arrays(self) -> Arrays:
        """All rows at once: field -> [N, ...]."""
        return self.take(np.arange(self.num_rows))


class ArrayRows(Rows):
    """Rows of arrays in memory."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Make rows from arrays.

        Args:
            arrays: field -> [N, ...].

        Raises:
            ValueError: the arrays have different lengths, or are none, see `as_numpy`.
        """
        self._arrays = {name: as_numpy(value, f"arrays: {name}") for name, value in arrays.items()}
        lengths = {name: len(value) for name, value in self._arrays.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"arrays: expected as many rows in each, found {lengths}")
        self.num_rows = next(iter(lengths.values()))

    def take(self, places: np.ndarray) -> Arrays:
        """See `Rows`."""
        return {name: value[places] for name, value in self._arrays.items()}

    def facts(self) -> dict[str, Any]:
        """See `Rows`: a digest of each field."""
        return {name: digest(value) for name, value in sorted(self._arrays.items())}


def as_rows(given: Rows | Mapping[str, np.ndarray]) -> Rows:
    """`given` as `Rows`; arrays become `ArrayRows`."""
    return given if isinstance(given, Rows) else ArrayRows(given)
