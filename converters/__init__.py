"""Converts PAXml checkpoints to Flax: lazily, verified, without PAXml installed.

from converters import convert_paxml_checkpoint, load_converted

convert_paxml_checkpoint("job/checkpoints", "out")
params, optimizer_state, config = load_converted("out")

Read `conversion` first: it has all steps on one page. Then read the folders in the order in which
the data passes them: `stores` (access to files), `arrays` and `zarr` (lazy leaves), `paxml` (reads
PAXml's layouts), `rules` (which leaf becomes which), `plan`, `write`. `huggingface` converts from
and to HuggingFace folders, `recommender` builds a recommender on a HuggingFace model, `commands`
holds the shell commands, `errors` the exceptions. `moved` lists modules that have moved.
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
