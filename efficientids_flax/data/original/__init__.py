"""Reads the original's data formats without its packages: TFRecord examples, the seed's folder.

Read `records`, the file format with its checksums; then `messages`, the content of a record;
`examples`, the rows made of them; `shards`, which finds the files of each split; `objects`, which
reads plain pickles; and `processed`, which reads the folder of them.
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
