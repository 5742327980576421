"""A converted PAXml run goes on in the Trainer: its state, its learner, its skipped steps."""

import dataclasses
import warnings

import jax
import numpy as np
import optax
import pytest

from converters import convert_paxml_checkpoint
from efficientids_flax.config import ScheduleConfig
from efficientids_flax.core.clustering.tables import ClusteringInfo
from efficientids_flax.core.models import EfficientIDSModel
from efficientids_flax.stored import as_optax
from efficientids_flax.stored.load import load_converted
from efficientids_flax.train.converted import trainer_from_converted
from efficientids_flax.train.optimizer.learner import paxml_learner
from efficientids_flax.train.run.calls import train
from efficientids_flax.train.run.model_section import ModelSection
from parity_tests.cases import OUTPUTS

BETAS = {"beta1": 0.9, "beta2": 0.95, "epsilon": 1e-6}
CASES = {
    "k_adam": (BETAS, {}),
    "d_correction_frozen_lm": (
        {"beta1": 0.9},
        {
            "decay_method": "adam", "decay_adam": 0.999, "clip_threshold": 1.0,
            "bprop_variable_exclusion": (
                "params/lm/(transformer|final_ln|softmax/logits_ffn)/.*",
            ),
        },
    ),
}  # fmt: skip
FIELDS = (
    "ids", "labels", "weights", "paddings", "input_item_weights", "label_item_weights",
    "segment_ids", "segment_pos", "inputs_indicator",
)  # fmt: skip


@pytest.fixture(scope="module", params=CASES)
def case(request, recording, tmp_path_factory):
    """(converted checkpoint, clustering, batch, optimizer configuration)."""
    name = request.param
    overrides, settings = CASES[name]
    out = tmp_path_factory.mktemp(name) / "out"
    directory = recording(name)
    convert_paxml_checkpoint(directory / "checkpoint", out, overrides=overrides)
    with np.load(OUTPUTS / name / "arrays.npz") as recorded:
        batch = {
            field: recorded[f"inputs/{field}"]
            for field in FIELDS
            if f"inputs/{field}" in recorded.files
        }
    found = load_converted(out).config.optimizer
    # What the recording's job had: its schedule is not in the checkpoint.
    optimizer = dataclasses.replace(
        found, learning_rate=1e-3, schedule=ScheduleConfig("constant"), **settings
    )
    return out, ClusteringInfo.from_pickle(directory / "clustering.pkl"), batch, optimizer


def begun(case, **options):
    out, clustering, batch, optimizer = case
    options = {"progress": "none", "log_every": 1, **options}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*not all of its settings are known", UserWarning)
        return trainer_from_converted(
            out, batch, clustering=clustering, optimizer_config=optimizer, **options
        )


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def test_begins_with_what_was_converted(case):
    converted = load_converted(case[0])
    _, state = begun(case)
    assert int(state.step) == converted.optimizer_state.step == 3
    assert bits(state.params) == bits(converted.params)
    assert bits(state.opt_state) == bits(converted.optimizer_state.optimizer)


def test_takes_the_steps_of_the_learner(case):
    out, clustering, batch, optimizer = case
    converted = load_converted(out)
    model = EfficientIDSModel(config=converted.config.model, clustering_info=clustering)
    learner = paxml_learner(optimizer, converted.config.model)

    @jax.jit
    def step(params, chain):
        loss, found = jax.value_and_grad(
            lambda params: model.apply({"params": params}, batch, method="loss").loss
        )(params)
        updates, chain = learner.update(found, chain, params, loss=loss)
        return optax.apply_updates(params, updates), chain, loss

    params, chain = converted.params, converted.optimizer_state.optimizer
    losses = []
    for _ in range(2):
        params, chain, loss = step(params, chain)
        losses.append(float(loss))
    trainer, state = begun(case)
    frozen = bits(state.frozen)
    state = trainer.train(state, [batch] * 2, num_steps=5)
    # The same operations in two programs: roundings, which Adam's quotient amplifies where a
    # gradient is tiny; both are far below what one step moves a parameter (1e-3).
    np.testing.assert_allclose([row["loss"] for row in trainer.history], losses, rtol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(state.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)
    assert bits(state.frozen) == frozen
    if optimizer.bprop_variable_exclusion:
        assert set(state.frozen) == {"pretrained_lm"}
        assert "pretrained_lm" not in state.trained


def test_by_a_configuration_it_leaves_out_a_step_that_is_not_finite_and_counts_it(case):
    out, clustering, batch, optimizer = case
    section = {"kind": "converted", "path": str(out), "learner": optimizer.to_dict()}
    bad = batch | {"weights": np.full_like(batch["weights"], 3e38)}  # the sum is infinite
    result = train(
        {
            "model": ModelSection.from_dict(section).made(clustering),
            "data": {"train_iter_fn": lambda: [bad]},
            "training": {"num_steps": 4, "progress": "none"},
        }
    )
    converted = load_converted(out)
    assert result.history[-1]["finite"] == 0
    assert int(result.state.step) == 4
    assert bits(result.state.params) == bits(converted.params)
    assert bits(result.state.opt_state) == bits(converted.optimizer_state.optimizer)


def test_decay_rates_that_the_conversion_lacked_are_given_later(recording, tmp_path):
    """The same state to the bit as where the conversion knew them."""
    directory = recording("k_adam")
    for name, overrides in (("known", BETAS), ("alone", {"epsilon": 1e-6})):
        convert_paxml_checkpoint(directory / "checkpoint", tmp_path / name, overrides=overrides)
    known = load_converted(tmp_path / "known").optimizer_state.optimizer
    alone = load_converted(tmp_path / "alone")
    assert list(alone.optimizer_state.optimizer) == ["adam_bias_corrected", "schedule"]
    config = alone.config.optimizer
    with pytest.raises(
        ValueError, match=r"as PAXml stored them.*; give beta1 and beta2, or convert"
    ):
        as_optax(alone.optimizer_state.optimizer, config)
    given = dataclasses.replace(config, beta1=BETAS["beta1"], beta2=BETAS["beta2"])
    made = as_optax(alone.optimizer_state.optimizer, given)
    assert list(made) == list(known)
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), made, known
    )
