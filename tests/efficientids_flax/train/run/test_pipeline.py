"""Epochs over arrays, by the fields of the seed document's configuration."""

from dataclasses import replace
from functools import cache

import pytest

from efficientids_flax.train import PipelineConfig, train_epochs
from tests.efficientids_flax.train.networks import Network, data, loss_fn, same

QUIET = {"progress": "none", "plot": False}

# As the document has it, but for the sizes.
CONFIG = PipelineConfig(
    name="advanced_training",
    batch_size=8,
    num_epochs=1,
    learning_rate=1e-3,
    optimizer_type="adam",
    checkpoint_dir=None,
    save_frequency=5,
    # Scheduler settings
    scheduler_type="cosine",
    warmup_steps=2,
    total_steps=20,
    # Optimizer settings
    beta1=0.9,
    beta2=0.999,
    weight_decay=1e-4,
)


NETWORK = Network(dropout=0.0, statistics=False)


@cache
def trained(config, **options):
    return train_epochs(config, NETWORK, data(), loss_fn=loss_fn, **QUIET, **options)


def ends_alike(config, other):
    return same(trained(config).state, trained(other).state)


def test_fields_of_other_optimizers_and_schedules_are_kept_and_not_used():
    """`optimizer_type = "sgd"`, the document's first experiment, leaves the Adam fields in."""
    momentum = replace(CONFIG, optimizer_type="sgd", momentum=0.9)
    assert (momentum.beta1, momentum.beta2) == (0.9, 0.999)
    assert ends_alike(momentum, replace(momentum, beta1=None, beta2=None))
    assert ends_alike(replace(CONFIG, momentum=0.5), CONFIG)
    decays = {"decay_steps": 100, "decay_rate": 0.96}
    assert ends_alike(replace(CONFIG, **decays), CONFIG)


def test_those_of_the_chosen_ones_are_used():
    momentum = replace(CONFIG, optimizer_type="sgd", momentum=0.9)
    assert not ends_alike(momentum, replace(momentum, momentum=0.5))
    assert not ends_alike(CONFIG, replace(CONFIG, beta1=0.5))
    decays = {"scheduler_type": "exponential", "decay_steps": 3, "decay_rate": 0.5}
    assert not ends_alike(replace(CONFIG, **decays), CONFIG)


@pytest.mark.parametrize(
    "optimizer", ["adam", "adamw", "sgd", "adafactor", "sharded_adafactor", "praxis_adam"]
)
def test_every_optimizer_takes_the_same_configuration(optimizer):
    result = trained(replace(CONFIG, optimizer_type=optimizer, momentum=0.9))
    assert int(result.state.step) == 6


@pytest.mark.parametrize(
    "scheduler", [None, "constant", "linear", "cosine", "exponential", "step", "inverse_sqrt"]
)
def test_every_schedule_takes_the_same_configuration(scheduler):
    config = replace(CONFIG, scheduler_type=scheduler, decay_steps=100, decay_rate=0.96)
    result = trained(config)
    rates = [row["learning_rate"] for row in result.history]
    assert rates[:3] == pytest.approx([0, 0.5e-3, 1e-3])


def test_a_misspelt_field_is_an_error():
    with pytest.raises(TypeError, match="optimiser_type"):
        PipelineConfig(optimiser_type="sgd")  # pyright: ignore[reportCallIssue]
    with pytest.raises(ValueError, match=r"momentun: unknown key; did you mean momentum\?"):
        PipelineConfig.from_dict({"momentun": 0.9})
    with pytest.raises(ValueError, match="optimizer 'sdg'"):
        trained(replace(CONFIG, optimizer_type="sdg"))
    with pytest.raises(ValueError, match="learning-rate schedule 'cosin'"):
        trained(replace(CONFIG, scheduler_type="cosin"))
    with pytest.raises(ValueError, match="decay_rate: needed, found None"):
        trained(replace(CONFIG, scheduler_type="exponential", decay_steps=3))


def test_an_option_that_there_is_not_is_told_with_the_nearest():
    with pytest.raises(ValueError, match="log_evry: unknown key; did you mean log_every"):
        trained(CONFIG, log_evry=3)
