"""Training whose steps equal PAXml's. Public names are imported when they are first used.

Read `trainer`, the public class, then `preparing` and the folders `loop`, `step`, `state`,
`optimizer` and `logs`. Parts of the trainer are `evaluating`, `directory`, `options`, `direction`
(whether a higher metric is better), `batches`, `evaluation_data`, random `keys` and `history`.
`alarm` ends all processes of a run if one fails, `converted` continues a PAXml run, `run` trains
from a configuration file, and `commands` from the shell.
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
