"""Losses of sequences are those of the model itself, whether its layers are scanned or not."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from efficientids_flax.backbone import Decoder
from efficientids_flax.config import RotaryConfig
from efficientids_flax.losses import language_model_loss
from efficientids_flax.search import Samples
from efficientids_flax.search.losses import Losses
from efficientids_flax.search.moves import choices, moves
from tests.efficientids_flax.backbone.small_decoders import made
from tests.efficientids_flax.compiled import applied
from tests.efficientids_flax.core import model_cases as recommender
from tests.efficientids_flax.search.small import CONFIG, sequences

CLOSE = {"rtol": 2e-6}  # float32, sums in another order


@pytest.mark.parametrize("change", [{}, {"scan_layers": True}, {"rotary": RotaryConfig()}],
                         ids=["plain", "scanned", "rotary"])  # fmt: skip
def test_losses_are_those_of_the_compiled_model(change):
    config = replace(CONFIG, **change)
    params, samples = made(config), sequences()
    module, batch = Decoder(config), {k: jnp.asarray(v) for k, v in samples.batch.items()}
    hidden = applied(module, {"params": params}, batch["ids"])
    logits = applied(module, {"params": params}, hidden, method="logits")
    of_all = language_model_loss(config, logits, batch, train=False)
    wanted = np.asarray(of_all.per_sequence_xent)
    found = Losses(config, params, samples)
    np.testing.assert_allclose(found(config), wanted, **CLOSE)
    assert found.mean(config) == pytest.approx(wanted.sum() / samples.weight.sum(), rel=2e-6)


def test_smoothing_counts_not_and_what_was_run_is_not_run_again():
    params, samples = made(CONFIG), sequences()
    found = Losses(CONFIG, params, samples)
    plain = found(CONFIG)
    runs = found.runs
    assert found(CONFIG).tolist() == plain.tolist()
    assert found.runs == runs
    smoothed = replace(CONFIG, label_smoothing=0.1, z_loss_weight=1.0)
    np.testing.assert_array_equal(found(smoothed), plain)


def test_losses_that_are_no_numbers_are_infinite():
    config = replace(CONFIG, activation="exp")
    params = made(config)
    params = {**params, "lm_head": {**params["lm_head"], "bias": jnp.full(13, jnp.nan)}}
    assert np.all(Losses(config, params, sequences())(config)[1:] == np.inf)


@pytest.mark.parametrize("changes", [{}, {"full_softmax": True}, {"soft_cap_logits": 3.0}],
                         ids=["hierarchical", "full softmax", "cap"])  # fmt: skip
def test_losses_of_a_recommender_are_those_of_its_model(changes):
    made_of = recommender.model(**changes)
    params = recommender.parameters(made_of)
    batch = recommender.batch(rows=10)
    wanted = recommender.run(made_of, params, batch, "loss", train=False)
    found = Losses(made_of.config, params, Samples(batch), recommender.clustering())
    per_row = np.asarray(wanted.per_token_xent).sum(axis=-1)
    np.testing.assert_allclose(found(made_of.config), per_row, **CLOSE)


def test_each_open_setting_of_a_recommender_can_be_run():
    made_of = recommender.model()
    params = recommender.parameters(made_of)
    found = Losses(
        made_of.config, params, Samples(recommender.batch(rows=10)), recommender.clustering()
    )
    barred = {"backbone.attention_mask": ["prefix"]}
    tried = list(moves(made_of.config, choices(made_of.config, {}, without=barred)))
    keys = {key for key, _, _ in tried}
    assert {"backbone.activation", "soft_cap_logits", "input_adapter.activation"} <= keys
    first = {key: config for key, _, config in reversed(tried)}
    assert all(found(config).shape == (10,) for config in first.values())
