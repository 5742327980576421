"""Optimizers, schedules and freezing as optax transformations, for new runs and as in Praxis.

Read `create` and `kinds` for new runs, `learner` for a converted one; `adam`, `adafactor`,
`clipping` and `updates` are their parts. `variables` maps parameters to Praxis' names and layers,
`schedules` and `praxis_schedules` are the learning rates, `applied` finds the rate that an update
used, `freeze` and `strategies` select what is trained.
"""

from efficientids_flax.moved import left_names
from efficientids_flax.train.optimizer.applied import (
    RATE,
    applied_rate,
    injected,
    next_rate,
    renewed,
    updates_taken,
    with_injected,
)
from efficientids_flax.train.optimizer.create import (
    KINDS,
    ByRow,
    averaged_params,
    create_learning_rate_schedule,
    create_optimizer,
)
from efficientids_flax.train.optimizer.freeze import (
    Predicate,
    frozen_mask,
    matcher,
    merge,
    partition,
)
from efficientids_flax.train.optimizer.learner import excluded_by, learning_rate, paxml_learner
from efficientids_flax.train.optimizer.schedules import CURVES
from efficientids_flax.train.optimizer.strategies import (
    STRATEGIES,
    frozen_parameters,
    needs_weights,
)
from efficientids_flax.train.optimizer.variables import variables_of

__getattr__ = left_names(__name__)
