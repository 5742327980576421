"""One step of training or evaluation: from a batch to a new state or to metrics.

Read `objectives`, what is minimised, then `function`, the step, `rows`, where it changes few rows
of the item table, and `compiled`; `initial_state` is what the first one starts from, `nnx_bridge`
lets NNX modules be called as Linen's are, `evaluation` measures, with the sums of `mean` and
modules in their `evaluation_mode`, several batches at once by `gathering`, `window` adds up;
`batch_checks` and `nonfinite` say what is wrong.
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
from efficientids_flax.train.step.function import FINITE, WEIGHT, LossFn
from efficientids_flax.train.step.mean import Means
from efficientids_flax.train.step.nnx_bridge import NNXBridge
from efficientids_flax.train.step.nonfinite import (
    NonFiniteError,
    WrongValues,
    explain,
    told_values,
)
from efficientids_flax.train.step.objectives import make_objective
from efficientids_flax.train.step.window import Totals, Window, clock

__getattr__ = left_names(__name__)
