"""What answers questions: an export, named sets of its items, and the queue before the device.

Read `catalogue`, the ids of items; `export`, a loaded and compiled model; `current`, the export
that answers now; and `gather`, which batches questions.
"""

from efficientids_flax.serve.answers.catalogue import Catalogue, ItemId, read_catalogue
from efficientids_flax.serve.answers.current import (
    SET_NAME,
    Current,
    Snapshot,
    TooManySetsError,
    read_set,
)
from efficientids_flax.serve.answers.export import Export, Source, load_export
from efficientids_flax.serve.answers.gather import Answer, BusyError, Gathering, Told

__all__ = [
    "SET_NAME",
    "Answer",
    "BusyError",
    "Catalogue",
    "Current",
    "Export",
    "Gathering",
    "ItemId",
    "Snapshot",
    "Source",
    "Told",
    "TooManySetsError",
    "load_export",
    "read_catalogue",
    "read_set",
]
