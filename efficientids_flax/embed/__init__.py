"""Item vectors of a catalogue: from texts, from interactions, or random.

Read `als`, which factors the user-item matrix, and `cooccurrence`, which factors how often items
occur near each other in time; `texts` with `encoders` runs a language model over titles. `items`
reads data of a catalogue; `output` writes vectors, resumably if it takes long.
"""

from typing import TYPE_CHECKING

from efficientids_flax.lazy_names import lazy_names

if TYPE_CHECKING:
    from efficientids_flax.embed.als import AlsOptions, factorize, objective
    from efficientids_flax.embed.cooccurrence import CooccurrenceOptions, cooccurrence_vectors
    from efficientids_flax.embed.encoders import (
        DecoderEncoder,
        Encoder,
        TransformersEncoder,
        pooled,
    )
    from efficientids_flax.embed.items import (
        Catalogue,
        catalogue_of,
        interactions_of,
        texts_of,
        texts_of_file,
    )
    from efficientids_flax.embed.output import Output, drawn
    from efficientids_flax.embed.texts import TextOptions, embed_texts

__all__ = [
    "AlsOptions",
    "Catalogue",
    "CooccurrenceOptions",
    "DecoderEncoder",
    "Encoder",
    "Output",
    "TextOptions",
    "TransformersEncoder",
    "catalogue_of",
    "cooccurrence_vectors",
    "drawn",
    "embed_texts",
    "factorize",
    "interactions_of",
    "objective",
    "pooled",
    "texts_of",
    "texts_of_file",
]

__getattr__ = lazy_names(__name__)
