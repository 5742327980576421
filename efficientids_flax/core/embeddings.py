"""Public path of the item table and its adapters, which are defined in `core.head`."""

from efficientids_flax.core.head.embeddings import (
    ItemEmbedding,
    ItemInputAdapter,
    ItemOutputAdapter,
    create_embedding_initializer,
)
from efficientids_flax.moved import left_names

__all__ = [
    "ItemEmbedding",
    "ItemInputAdapter",
    "ItemOutputAdapter",
    "create_embedding_initializer",
]

__getattr__ = left_names(__name__)
