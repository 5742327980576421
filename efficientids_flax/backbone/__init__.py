"""The decoder: one configurable Linen module for Praxis' and HuggingFace's language models.

Names are imported when they are first used: `backbone.presets` needs no JAX. `generate` has the
name of its module and is taken from there.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from efficientids_flax.backbone.cache import KVCache, make_cache
    from efficientids_flax.backbone.decoder import Decoder
    from efficientids_flax.backbone.sampling import SamplingConfig

__all__ = ["Decoder", "KVCache", "SamplingConfig", "make_cache"]

_HOMES = {
    "Decoder": "decoder",
    "KVCache": "cache",
    "SamplingConfig": "sampling",
    "make_cache": "cache",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
