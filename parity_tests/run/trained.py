"""Gives the model recorded parameters, and holds its optimizer."""

from dataclasses import dataclass

from efficientids_flax.config import OptimizerConfig
from efficientids_flax.stored import OptimizerState
from efficientids_flax.tree import flatten
from parity_tests.recording import Arrays, Pass, Recording
from parity_tests.run.activations import Subject
from parity_tests.run.parameters import place, to_our_tree


@dataclass(frozen=True)
class Trained:
    """What is needed to continue training.

    Attributes:
        optimizer: configuration of the optimizer; None if unknown.
        state: optimizer state of the converted checkpoint; None if it was not converted.
    """

    optimizer: OptimizerConfig | None
    state: OptimizerState | None


def belonging(subject: Subject, recording: Recording, one: Pass) -> Subject:
    """The model with the parameters that a pass was run with.

    Raises:
        RecordingError: the parameters are not those of this model.
    """
    if one.parameters is None:
        return subject
    return with_parameters(subject, recording, one.parameters)


def with_parameters(subject: Subject, recording: Recording, parameters: Arrays) -> Subject:
    """The model with recorded parameters; parameters that are not recorded stay the same.

    Raises:
        RecordingError: the parameters are not those of this model.
    """
    given = to_our_tree(parameters, recording.names, subject)
    own = flatten(subject.params)
    values = {**own, **{path: value for path, (value, _) in given.items()}}
    return subject.with_parameters(place(values, own))
