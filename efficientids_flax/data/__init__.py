"""Sequences of items as batches: prepared files, texts interleaved with items, synthetic processes.

Read `files`, what a directory of data may hold, then `prepared`, what the preparation wrote, and
`original`, the formats of the original; `rows` are what `reading` makes of them, by `packing`
several in one, `loader` makes batches of them, and `ahead` reads these before they are asked for.
`texts`, `interleave` and `tokens` are how titles and ids become the batches of a recommender;
`markov` draws data whose best possible metrics are known, `repeats` tells whether a stream of
batches ever ends.
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
