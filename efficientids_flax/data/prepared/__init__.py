"""The directory that `prepare` writes: its manifest, its tables, the sequences of its users.

Read `manifest`, what the directory says of itself, then `tables`, how the Parquet files are read,
and `folder`, the whole, of which nothing but the manifest is read before it is asked for; `vectors`
says whose a file of embeddings is.
"""

from efficientids_flax.data.prepared.folder import Prepared, open_prepared
from efficientids_flax.data.prepared.manifest import Manifest, check_catalogue
from efficientids_flax.data.prepared.vectors import check_vectors

__all__ = [
    "Manifest",
    "Prepared",
    "check_catalogue",
    "check_vectors",
    "open_prepared",
]
