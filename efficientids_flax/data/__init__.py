"""From data to batches: prepared files, texts interleaved with items, synthetic data.

Read `files`, the kinds of data directories, then `prepared`, the output of the preparation, and
`original`, the original's formats. `reading` turns sequences into `rows`, with `packing` of several
into one; `loader` makes batches of rows, and `ahead` prefetches them. `texts`, `interleave` and
`tokens` turn titles and item ids into batches of a recommender. `markov` draws synthetic data whose
best possible metrics are known, `repeats` detects a stream of batches that never ends, and
`vocabularies` finds the tokenizers that a source of data uses.
"""

from typing import TYPE_CHECKING

from efficientids_flax.lazy_names import lazy_names

if TYPE_CHECKING:
    from efficientids_flax.backbone.presets import load_tokenizer
    from efficientids_flax.core.vectors import read_vectors
    from efficientids_flax.data.files import DataDirectory, next_items, read_data
    from efficientids_flax.data.interleave import PromptBuilder
    from efficientids_flax.data.loader import Batches
    from efficientids_flax.data.markov import MarkovItems
    from efficientids_flax.data.prepared import Prepared, open_prepared
    from efficientids_flax.data.reading import Reading
    from efficientids_flax.data.rows import Prompting, Rows
    from efficientids_flax.data.texts import Example, titled

__all__ = [
    "Batches",
    "DataDirectory",
    "Example",
    "MarkovItems",
    "Prepared",
    "PromptBuilder",
    "Prompting",
    "Reading",
    "Rows",
    "load_tokenizer",
    "next_items",
    "open_prepared",
    "read_data",
    "read_vectors",
    "titled",
]

__getattr__ = lazy_names(__name__)
