"""What modules are trained for and measured by.

Read `parts`, what an objective consists of, then `make`, which makes it of a module, and its two
kinds: models of this package bring their `own_loss`, any other Linen or NNX module has a
`given_loss`.
"""

from efficientids_flax.train.step.objectives.make import make_objective
from efficientids_flax.train.step.objectives.parts import Gathering, Objective

__all__ = ["Gathering", "Objective", "make_objective"]
