"""The three named strategies, by what they train of a real model."""

import jax
import numpy as np
import pytest

from efficientids_flax.config import BackboneConfig, EfficientIDSConfig
from efficientids_flax.core.models import EfficientIDSModel
from efficientids_flax.train.optimizer.create import create_optimizer
from efficientids_flax.train.optimizer.strategies import (
    STRATEGIES,
    frozen_parameters,
    needs_weights,
)
from efficientids_flax.tree import flatten

CONFIG = EfficientIDSConfig(
    backbone=BackboneConfig(
        vocab_size=8, num_layers=1, model_dims=4, hidden_dims=8, num_heads=2, num_kv_heads=2,
        head_dim=2,
    ),
    num_items=5, item_embedding_dim=3, full_softmax=True,
)  # fmt: skip


def test_the_names_are_those_of_the_original():
    assert set(STRATEGIES) == {
        "frozen_pretrained", "full_finetune_pretrained", "train_from_scratch",
    }  # fmt: skip
    assert {name for name in STRATEGIES if needs_weights(name)} == {
        "frozen_pretrained", "full_finetune_pretrained",
    }  # fmt: skip


@pytest.mark.parametrize("name", STRATEGIES)
def test_what_is_trained(name: str):
    model = EfficientIDSModel(config=CONFIG)
    ids = np.array([[1, 2]])
    params = jax.eval_shape(
        lambda key: model.init(key, ids, ids, np.ones_like(ids))["params"], jax.random.key(0)
    )
    optimizer = create_optimizer(1e-3, "adam", frozen_params=frozen_parameters(name))
    trained = set(flatten(jax.eval_shape(optimizer.init, params)["adam"].mu))
    frozen = set(flatten(params)) - trained
    language_model = {path for path in flatten(params) if path.startswith("pretrained_lm/")}
    assert frozen == (language_model if name == "frozen_pretrained" else set())
    assert language_model
    assert trained


def test_an_unknown_strategy():
    for function in (frozen_parameters, needs_weights):
        with pytest.raises(ValueError, match="strategy: found 'frozen', there are frozen_pretrain"):
            function("frozen")
