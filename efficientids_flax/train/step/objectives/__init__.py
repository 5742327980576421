"""Objectives: the loss and the evaluation metrics of a module.

Read `parts`, what an objective consists of, then `make`, which makes one for a module, and the two
kinds: models of this package have their `own_loss`, any other Linen or NNX module needs a
`given_loss`.
"""

from efficientids_flax.train.step.objectives.make import make_objective
from efficientids_flax.train.step.objectives.parts import Gathering, Objective

__all__ = ["Gathering", "Objective", "make_objective"]
