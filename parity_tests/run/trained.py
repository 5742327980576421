"""The model as a recording has it: with recorded parameters, and with its optimizer."""

from dataclasses import dataclass

from efficientids_flax.config import OptimizerConfig
from efficientids_flax.stored import OptimizerState
from efficientids_flax.tree import flatten
from parity_tests.recording import Arrays, Pass, Recording
from parity_tests.run.activations import Subject
from parity_tests.run.parameters import place, to_our_tree


@dataclass(frozen=True)
class Trained:
    """What is needed to go on training.

    Attributes:
        optimizer: its configuration; None where it is not known.
        state: of the converted checkpoint; None where it was not converted.
    """

    optimizer: OptimizerConfig | None
    state: OptimizerState | None


def belonging(subject: Subject, recording: Recording, one: Pass) -> Subject:
    """The model with the parameters that a pass belongs to.

    Raises:
        RecordingError: they are not those of this model.
    """
    if one.parameters is None:
        return subject
    return with_parameters(subject, recording, one.parameters)


def with_parameters(subject: Subject, recording: Recording, parameters: Arrays) -> Subject:
    """The model with recorded parameters; those that are not recorded stay its own.

    Raises:
        RecordingError: they are not those of this model.
    """
    given = to_our_tree(parameters, recording.names, subject)
    own = flatten(subject.params)
    values = {**own, **{path: value for path, (value, _) in given.items()}}
    return subject.with_parameters(place(values, own))
