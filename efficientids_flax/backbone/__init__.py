"""The decoder: one configurable Linen module for Praxis' and HuggingFace's language models.

Names are imported when they are first used, since `backbone.presets` needs no JAX. The function
`generate` has the name of its module; import it from there.

Read `decoder`, `layer`, `attention`, `projection`, `layers`, `kernels`, then `positions`,
`experts`, `masks`, `inputs` and `lora`; `cache`, `sampling` and `generate` are for text
generation, `presets` reads HuggingFace's configurations.
"""

from typing import TYPE_CHECKING

from efficientids_flax.lazy_names import lazy_names

if TYPE_CHECKING:
    from efficientids_flax.backbone.cache import KVCache, make_cache
    from efficientids_flax.backbone.decoder import Decoder
    from efficientids_flax.backbone.sampling import SamplingConfig

__all__ = ["Decoder", "KVCache", "SamplingConfig", "make_cache"]

__getattr__ = lazy_names(__name__)
