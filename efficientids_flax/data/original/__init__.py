"""The original's data formats, read without its packages: TFRecord examples, the seed's folder.

Read `records`, how a file is divided and what its sums are, then `messages`, what is in a record,
and `examples`, the rows they become, with `shards`, which file is of which split; `objects` reads
plain pickles, `processed` the folder of them.
"""

from efficientids_flax.data.original.examples import ExampleRows, read_examples
from efficientids_flax.data.original.processed import Processed, read_processed
from efficientids_flax.data.original.records import RecordError, read_records
from efficientids_flax.data.original.shards import example_files

__all__ = [
    "ExampleRows",
    "Processed",
    "RecordError",
    "example_files",
    "read_examples",
    "read_processed",
    "read_records",
]
