"""PAXml models in Flax: a decoder, the EfficientIDs recommender, TimesFM, and their training.

Public names are imported when they are first used, so `import efficientids_flax` imports neither
jax nor another large package.

Read in the order of the data. Models: `config` and `parameters` describe a model, `settings` lists
what parameters do not show, `backbone` is the decoder, `core` the recommender on it, `forecast` the
forecaster, `losses` and `sharding` serve them, `stored` loads and saves. Data: `prepare` makes
training data from interactions, `data` makes batches, `embed` item vectors, `cluster` clusters.
Use: `train` trains, `inference` recommends, `evaluation` measures recommendations, `serve` serves
them over HTTP, `search` finds settings, `memory` estimates, `commands` is the program. All of them
use `array_checks`, `digests`, `prepared_format`, `tree`, `text`, `whole_files`, `lazy_names` and
`host_memory`; `moved` lists modules that have moved.
"""

from typing import TYPE_CHECKING

from efficientids_flax.lazy_names import lazy_names
from efficientids_flax.moved import MODULES, RENAMED, add_moved

if TYPE_CHECKING:
    # The one name from above: the converters know this package, and are imported with the name.
    from converters import convert_paxml_checkpoint
    from efficientids_flax.backbone.decoder import Decoder
    from efficientids_flax.backbone.generate import generate
    from efficientids_flax.config import BackboneConfig, EfficientIDSConfig
    from efficientids_flax.core.clustering.tables import ClusteringInfo
    from efficientids_flax.core.head.embeddings import (
        ItemEmbedding,
        ItemInputAdapter,
        ItemOutputAdapter,
        create_embedding_initializer,
    )
    from efficientids_flax.core.head.softmax import HierarchicalSoftmax
    from efficientids_flax.core.models import EfficientIDSModel, SimpleEfficientIDSModel
    from efficientids_flax.inference.ranker import recommend
    from efficientids_flax.memory import estimate_memory
    from efficientids_flax.stored.load import load_converted, load_model
    from efficientids_flax.stored.save import save_model
    from efficientids_flax.train.converted import trainer_from_converted
    from efficientids_flax.train.logs.preview import plot_schedule
    from efficientids_flax.train.logs.training_metrics import TrainingMetrics
    from efficientids_flax.train.optimizer.create import create_optimizer
    from efficientids_flax.train.optimizer.schedules import (
        create_learning_rate_schedule,
        create_warmup_cosine_schedule,
    )
    from efficientids_flax.train.run.calls import TrainingResult
    from efficientids_flax.train.state.carried import TrainState
    from efficientids_flax.train.trainer import Trainer

__all__ = [
    "BackboneConfig",
    "ClusteringInfo",
    "Decoder",
    "EfficientIDSConfig",
    "EfficientIDSModel",
    "HierarchicalSoftmax",
    "ItemEmbedding",
    "ItemInputAdapter",
    "ItemOutputAdapter",
    "SimpleEfficientIDSModel",
    "TrainState",
    "Trainer",
    "TrainingMetrics",
    "TrainingResult",
    "convert_paxml_checkpoint",
    "create_embedding_initializer",
    "create_learning_rate_schedule",
    "create_optimizer",
    "create_warmup_cosine_schedule",
    "estimate_memory",
    "generate",
    "load_converted",
    "load_model",
    "plot_schedule",
    "recommend",
    "save_model",
    "trainer_from_converted",
]

__getattr__ = lazy_names(__name__)
add_moved(__name__, MODULES, RENAMED)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
