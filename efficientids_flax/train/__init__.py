"""Training, step by step as PAXml's. Public names are imported when they are first used."""

from typing import TYPE_CHECKING

from efficientids_flax.lazy_names import lazy_names

if TYPE_CHECKING:
    from efficientids_flax.train.converted import trainer_from_converted
    from efficientids_flax.train.pipeline import PipelineConfig, train_epochs
    from efficientids_flax.train.run import TrainingResult, evaluate, train
    from efficientids_flax.train.train_state import TrainState
    from efficientids_flax.train.trainer import Trainer
    from efficientids_flax.train.training_metrics import TrainingMetrics

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

# fmt: off
_HOMES = {
    "PipelineConfig":         "pipeline",
    "TrainState":             "train_state",
    "Trainer":                "trainer",
    "TrainingMetrics":        "training_metrics",
    "TrainingResult":         "run",
    "evaluate":               "run",
    "train":                  "run",
    "train_epochs":           "pipeline",
    "trainer_from_converted": "converted",
}
# fmt: on

__getattr__ = lazy_names(__name__, _HOMES)
