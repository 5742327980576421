"""Turns PAXml checkpoints into Flax checkpoints: lazily, verified, with no PAXml installed.

from converters import convert_paxml_checkpoint, load_converted

convert_paxml_checkpoint("job/checkpoints", "out")
params, optimizer_state, config = load_converted("out")

Read `conversion`, the whole way on one page, then the folders in the order of the data: `stores`
(where files lie), `arrays` and `zarr` (leaves that are not read yet), `paxml` (what PAXml wrote),
`rules` (which leaf becomes which), `plan`, `write`. `huggingface` goes the same way from and to
HuggingFace folders, `recommender` puts a recommender on such a model, `commands` are the shell's;
`errors` has what any of them may end in, `moved` the modules that have another place than they had.
"""

from typing import TYPE_CHECKING

from converters.moved import MODULES, RENAMED
from efficientids_flax.lazy_names import lazy_names
from efficientids_flax.moved import add_moved

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
add_moved(__name__, MODULES, RENAMED)
