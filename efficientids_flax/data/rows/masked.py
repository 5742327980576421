"""Rows with masks that mark every id as an item, for models that have words too."""

from typing import Any

import numpy as np

from efficientids_flax.data.rows.arrays import Arrays, Rows


class ItemRows(Rows):
    """Rows of items alone, with the masks `input_item_weights` and `label_item_weights`.

    Attributes:
        rows: the rows without masks.
    """

    def __init__(self, rows: Rows) -> None:
        """Add the masks to these rows."""
        self.rows, self.num_rows = rows, rows.num_rows

    def take(self, places: np.ndarray) -> Arrays:
        """See `Rows`. A label without weight is not marked as an item, so that it is not ranked."""
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
