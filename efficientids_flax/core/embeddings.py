"""Where users were promised the item table and its adapters; they live in `core.head`."""

from efficientids_flax.core.head.embeddings import (
    ItemEmbedding,
    ItemInputAdapter,
    ItemOutputAdapter,
    create_embedding_initializer,
)

__all__ = [
    "ItemEmbedding",
    "ItemInputAdapter",
    "ItemOutputAdapter",
    "create_embedding_initializer",
]
