"""The errors of a conversion: each names the file or leaf, what was found, and what to do."""


class ConversionError(Exception):
    """Base of all: something about the input or output that the user can act on (exit code 1)."""


class CheckpointError(ConversionError):
    """The source checkpoint is missing, incomplete, damaged or of an unknown layout."""


class MappingError(ConversionError):
    """A rule table does not fit the checkpoint; the message lists every problem at once."""


class UnsupportedModelError(MappingError):
    """The weights convert, but the job's dump has settings that our models do not compute."""


class UnclearModelError(MappingError):
    """The tree, or the tree and the job's dump, do not describe one model of this family."""


class OptimizerError(ConversionError):
    """The optimizer state cannot be converted without guessing."""


class VerificationError(ConversionError):
    """What was written differs from what was read."""


class OutputError(ConversionError):
    """The output exists, has no room, or cannot be written."""
