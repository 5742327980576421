"""Sequences of items as batches: prepared files, texts interleaved with items, synthetic processes.

Read `files`, what a directory of prepared data holds, then `texts` and `interleave`, how titles and
ids become the batches of a recommender; `markov` draws data whose best possible metrics are known,
`repeats` tells whether a stream of batches ever ends.
"""

from typing import TYPE_CHECKING

from efficientids_flax.lazy_names import lazy_names

if TYPE_CHECKING:
    from efficientids_flax.backbone.presets import load_tokenizer
    from efficientids_flax.data.files import DataDirectory, next_items, read_data
    from efficientids_flax.data.interleave import PromptBuilder
    from efficientids_flax.data.markov import MarkovItems
    from efficientids_flax.data.texts import Example, titled

__all__ = [
    "DataDirectory",
    "Example",
    "MarkovItems",
    "PromptBuilder",
    "load_tokenizer",
    "next_items",
    "read_data",
    "titled",
]

__getattr__ = lazy_names(__name__)
