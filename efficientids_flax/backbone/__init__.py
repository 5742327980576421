"""The decoder: one configurable Linen module for every Praxis `TransformerLm` variant."""

from efficientids_flax.backbone.decoder import Decoder

__all__ = ["Decoder"]
