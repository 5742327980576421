"""Training, step by step as PAXml's. Public names are imported when they are first used.

Read `trainer`, what a user sees, then `preparing` and the folders `loop`, `step`, `state`,
`optimizer` and `logs`; `evaluating`, `directory`, `options`, `direction` (which way a metric is
better), `batches`, `evaluation_data` and `history` are parts of it, `alarm` ends several processes
as one, `converted` goes on with a PAXml run, `run` takes all from a configuration, `commands` from
the shell.
"""

from typing import TYPE_CHECKING

from efficientids_flax.lazy_names import lazy_names

if TYPE_CHECKING:
    from efficientids_flax.train.converted import trainer_from_converted
    from efficientids_flax.train.logs.training_metrics import TrainingMetrics
    from efficientids_flax.train.run.calls import TrainingResult, evaluate, train
    from efficientids_flax.train.run.pipeline import PipelineConfig, train_epochs
    from efficientids_flax.train.state.carried import TrainState
    from efficientids_flax.train.trainer import Trainer

__all__ = [
    "PipelineConfig",
    "TrainState",
    "Trainer",
    "TrainingMetrics",
    "TrainingResult",
    "evaluate",
    "train",
    "train_epochs",
    "trainer_from_converted",
]

__getattr__ = lazy_names(__name__)
