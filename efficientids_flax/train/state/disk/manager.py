"""Orbax' manager of checkpoints, for directories with damaged files."""

import warnings
from typing import Any

import orbax.checkpoint as ocp


class Manager(ocp.CheckpointManager):
    """Orbax' manager; metrics that cannot be read count as missing, with a warning."""

    def metrics(self, step: int) -> dict[str, Any] | None:
        """The metrics of a step; None if it has none, or they cannot be read.

        Orbax reads those of all steps when it opens a directory, and a file that a power failure
        left empty would make all of them unusable.
        """
        try:
            found = super().metrics(step)
            if found is None or isinstance(found, dict):
                return found
            error = f"found {type(found).__name__}, expected metrics by their names"
        except ValueError as damage:  # no JSON, or no text
            error = str(damage)
        warnings.warn(
            f"{self.directory}/{step}/metrics: damaged, cannot be read: {error}; this checkpoint"
            " cannot be the best one",
            stacklevel=2,
        )
        return None
