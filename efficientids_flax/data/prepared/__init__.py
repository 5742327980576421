"""The directory that `prepare` writes: its manifest, its tables, the sequences of its users.

Read `manifest`, the description of the directory, then `tables`, which reads the Parquet files, and
`folder`, the whole directory, which reads all but the manifest on demand. `vectors` checks which
catalogue a file of embeddings belongs to.
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
