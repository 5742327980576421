"""The errors of a conversion: each names the file or leaf, what was found, and what to do."""


class ConversionError(Exception):
    """Base class: something about the input or output that the user can act on (exit code 1)."""


class CheckpointError(ConversionError):
    """The source checkpoint is missing, incomplete, damaged or of an unknown layout."""


class MappingError(ConversionError):
    """A rule table does not fit the checkpoint; the message lists every problem at once."""


class UnsupportedModelError(MappingError):
    """The job's dump has settings that our models do not compute; the weights can be converted."""


class UnclearModelError(MappingError):
    """The tree, or the tree together with the dump, does not describe one model of the family."""


class OptimizerError(ConversionError):
    """The optimizer state cannot be converted without guessing."""


class VerificationError(ConversionError):
    """What was written differs from what was read."""


class OutputError(ConversionError):
    """The output exists, has no room, or cannot be written."""
