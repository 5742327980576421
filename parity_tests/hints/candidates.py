"""Defines what a hint is tested with: the model as it would be without a fault."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from parity_tests.compare import Difference
from parity_tests.recording import Pass
from parity_tests.run import Subject


@dataclass(frozen=True)
class Candidate:
    """The model as it would be without the fault.

    Attributes:
        cause: what would be wrong, in words.
        advice: what to do about it.
        subject, one: the model and the pass to run instead.
    """

    cause: str
    advice: str
    subject: Subject
    one: Pass


@dataclass(frozen=True)
class Correction:
    """A correction of one kind of fault.

    Attributes:
        at: regular expression of our paths where the fault can show first.
        candidates: (model, pass, first difference) -> what to try.
    """

    at: str
    candidates: Callable[[Subject, Pass, Difference], Iterator[Candidate]]

    def fits(self, ours: str) -> bool:
        """Whether the fault can cause a first difference at this path."""
        return re.search(self.at, ours) is not None
