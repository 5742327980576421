"""One step of training or evaluation: from a batch to a new state or to metrics.

Read `objectives`, what is minimised, `returned`, what a loss function returns, then `function`, the
step, `rows`, sparse updates of the item table, and `compiled`. `initial_state` makes the first
state. `nnx_bridge` lets NNX modules be called like Linen's. `evaluation` computes metrics, with the
weighted sums of `mean`, modules switched to `evaluation_mode`, and several batches at once by
`gathering`. `window` sums metrics and times between two logs; `batch_checks` and `nonfinite` find
what is wrong.
"""

from efficientids_flax.moved import left_names
from efficientids_flax.train.step.batch_checks import (
    Spec,
    batch_spec,
    check_like,
    length_of,
    repeating,
    tokens_of,
)
from efficientids_flax.train.step.compiled import FAULT, LONGEST, CompiledStep, compile_step
from efficientids_flax.train.step.evaluation import Evaluator
from efficientids_flax.train.step.evaluation_mode import built_to_train
from efficientids_flax.train.step.function import LossFn
from efficientids_flax.train.step.mean import Means
from efficientids_flax.train.step.nnx_bridge import NNXBridge
from efficientids_flax.train.step.nonfinite import (
    NonFiniteError,
    WrongValues,
    explain,
    told_values,
)
from efficientids_flax.train.step.objectives import make_objective
from efficientids_flax.train.step.returned import FINITE, WEIGHT
from efficientids_flax.train.step.window import Totals, Window, clock

__getattr__ = left_names(__name__)
