"""Turns PAXml checkpoints into Flax checkpoints: lazily, verified, with no PAXml installed.

from converters import convert_paxml_checkpoint, load_converted

convert_paxml_checkpoint("job/checkpoints", "out")
params, optimizer_state, config = load_converted("out")
"""

from typing import TYPE_CHECKING

from efficientids_flax.lazy_names import lazy_names

if TYPE_CHECKING:
    from converters.conversion import ConvertOptions, convert, convert_paxml_checkpoint
    from converters.errors import (
        CheckpointError,
        ConversionError,
        MappingError,
        OptimizerError,
        OutputError,
        VerificationError,
    )
    from converters.paxml import Checkpoint, open_checkpoint
    from converters.plan import PlanOptions
    from converters.write import Report
    from efficientids_flax.stored import load_converted

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

__getattr__ = lazy_names(__name__)
