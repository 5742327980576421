"""Rows that say of each id that it is an item, for models that know words too."""

from typing import Any

import numpy as np

from efficientids_flax.data.rows.arrays import Arrays, Rows


class ItemRows(Rows):
    """Rows of items alone, with the masks `input_item_weights` and `label_item_weights`.

    Attributes:
        rows: without them.
    """

    def __init__(self, rows: Rows) -> None:
        """Of these rows."""
        self.rows, self.num_rows = rows, rows.num_rows

    def take(self, places: np.ndarray) -> Arrays:
        """See `Rows`: a label that does not count is none, so that it is not ranked."""
        found = self.rows.take(places)
        found["input_item_weights"] = (found["paddings"] == 0).astype(np.int32)
        found["label_item_weights"] = (found["weights"] > 0).astype(np.int32)
        return found

    @property
    def sizes(self) -> np.ndarray | None:
        """See `Rows`."""
        return self.rows.sizes

    def facts(self) -> dict[str, Any]:
        """See `Rows`."""
        return self.rows.facts()

    @property
    def words(self) -> str | None:
        """See `Rows`."""
        return self.rows.words

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Rows`."""
        return self.rows.notes
