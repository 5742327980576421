"""PAXml models in Flax: a decoder, the EfficientIDs recommender, and what loads and runs them.

The public names are imported when they are first used: `import efficientids_flax` alone imports
neither jax nor anything else that is large.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from efficientids_flax.backbone.decoder import Decoder
    from efficientids_flax.backbone.generate import generate
    from efficientids_flax.config import BackboneConfig, EfficientIDSConfig
    from efficientids_flax.core.clustering import ClusteringInfo
    from efficientids_flax.core.embeddings import (
        ItemEmbedding,
        ItemInputAdapter,
        ItemOutputAdapter,
        create_embedding_initializer,
    )
    from efficientids_flax.core.models import EfficientIDSModel, SimpleEfficientIDSModel
    from efficientids_flax.core.softmax import HierarchicalSoftmax
    from efficientids_flax.inference.ranker import recommend
    from efficientids_flax.load import load_converted, load_model
    from efficientids_flax.memory import estimate_memory

__all__ = [
    "BackboneConfig",
    "ClusteringInfo",
    "Decoder",
    "EfficientIDSConfig",
    "EfficientIDSModel",
    "HierarchicalSoftmax",
    "ItemEmbedding",
    "ItemInputAdapter",
    "ItemOutputAdapter",
    "SimpleEfficientIDSModel",
    "create_embedding_initializer",
    "estimate_memory",
    "generate",
    "load_converted",
    "load_model",
    "recommend",
]

# fmt: off
_HOMES = {
    "BackboneConfig":               "config",
    "ClusteringInfo":               "core.clustering",
    "Decoder":                      "backbone.decoder",
    "EfficientIDSConfig":           "config",
    "EfficientIDSModel":            "core.models",
    "HierarchicalSoftmax":          "core.softmax",
    "ItemEmbedding":                "core.embeddings",
    "ItemInputAdapter":             "core.embeddings",
    "ItemOutputAdapter":            "core.embeddings",
    "SimpleEfficientIDSModel":      "core.models",
    "create_embedding_initializer": "core.embeddings",
    "estimate_memory":              "memory",
    "generate":                     "backbone.generate",
    "load_converted":               "load",
    "load_model":                   "load",
    "recommend":                    "inference.ranker",
}
# fmt: on


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
