"""Turns PAXml checkpoints into Flax checkpoints: lazily, verified, with no PAXml installed.

from converters import convert_paxml_checkpoint, load_converted

convert_paxml_checkpoint("job/checkpoints", "out")
params, optimizer_state, config = load_converted("out")
"""

from typing import TYPE_CHECKING, Any

from converters.convert import ConvertOptions, convert, convert_paxml_checkpoint
from converters.errors import (
    CheckpointError,
    ConversionError,
    MappingError,
    OptimizerError,
    OutputError,
    VerificationError,
)
from converters.paxml.checkpoint import Checkpoint, open_checkpoint
from converters.plan.make import PlanOptions
from converters.write.work import Report

if TYPE_CHECKING:
    from efficientids_flax.stored.load import load_converted

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "ConversionError",
    "ConvertOptions",
    "MappingError",
    "OptimizerError",
    "OutputError",
    "PlanOptions",
    "Report",
    "VerificationError",
    "convert",
    "convert_paxml_checkpoint",
    "load_converted",
    "open_checkpoint",
]


def __getattr__(name: str) -> Any:
    """`load_converted` comes with JAX and Orbax, which a conversion does not need in memory."""
    if name == "load_converted":
        from efficientids_flax.stored.load import load_converted

        return load_converted
    raise AttributeError(f"module 'converters' has no attribute '{name}'")
