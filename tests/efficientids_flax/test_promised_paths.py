"""The imports that users were promised, each as it was written."""

from importlib import import_module
from importlib.util import find_spec

import pytest

PROMISED = """
from efficientids_flax import ClusteringInfo, HierarchicalSoftmax, SimpleEfficientIDSModel
from efficientids_flax import ItemEmbedding, ItemInputAdapter, ItemOutputAdapter
from efficientids_flax import EfficientIDSModel, create_embedding_initializer
from efficientids_flax import TrainState, Trainer, TrainingMetrics, TrainingResult
from efficientids_flax import create_learning_rate_schedule, create_optimizer
from efficientids_flax import convert_paxml_checkpoint, create_warmup_cosine_schedule
from efficientids_flax.core.embeddings import ItemEmbedding, ItemInputAdapter, ItemOutputAdapter
from efficientids_flax.core.embeddings import create_embedding_initializer
from efficientids_flax.core.hierarchical import HierarchicalSoftmax
from efficientids_flax.core.models import EfficientIDSModel, SimpleEfficientIDSModel
from efficientids_flax.train import PipelineConfig, Trainer, TrainState, train, train_epochs
from efficientids_flax.train import TrainingMetrics, TrainingResult
from converters import convert_paxml_checkpoint, load_converted
"""
MODULES = ("efficientids_flax.train.__main__", "efficientids_flax.inference.__main__")


@pytest.mark.parametrize("line", PROMISED.strip().splitlines())
def test_an_import_works_as_written(line: str):
    exec(line)


def test_a_name_is_the_same_thing_wherever_it_is_imported_from():
    homes: dict[str, set[int]] = {}
    for line in PROMISED.strip().splitlines():
        _, module, _, *names = line.replace(",", "").split()
        for name in names:
            homes.setdefault(name, set()).add(id(getattr(import_module(module), name)))
    assert all(len(found) == 1 for found in homes.values()), homes


@pytest.mark.parametrize("name", MODULES)
def test_a_command_can_be_run_as_a_module(name: str):
    assert find_spec(name) is not None
