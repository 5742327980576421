"""Vectors of the items of a catalogue: of their texts, of who chose them and when, or drawn.

Read `als`, which factors who chose what, and `cooccurrence`, which factors what stands near what in
time; `texts` with `encoders` run a language model over titles. `items` reads what is known of a
catalogue, `output` writes what comes out, a part at a time where it takes long.
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
