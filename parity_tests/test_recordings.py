"""Every recording against its checkpoint after conversion: all values must agree.

pytest parity_tests                                  the bundled recordings
pytest parity_tests --out DIR --against RECORDING    a converted checkpoint of your own
"""

from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efficientids_flax.backbone import Decoder
from efficientids_flax.config import BackboneConfig
from efficientids_flax.parameters import parameter_shapes
from efficientids_flax.stored import load_config
from efficientids_flax.stored.items import stored_parameters
from efficientids_flax.tree import flatten
from parity_tests.cases import recordings
from parity_tests.converted import parity
from parity_tests.recording import Recording


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    own = metafunc.config.getoption("--out")
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", [] if own else list(recordings()))
    if "own" in metafunc.fixturenames:
        pairs = [(own, metafunc.config.getoption("--against"))] if own else []
        metafunc.parametrize("own", pairs, ids=["own"] if own else [])


def test_all_values_agree(
    name: str, converted: Callable[[str], Path], recorded: Callable[[str], Recording]
) -> None:
    report = parity(converted(name), recordings()[name])
    assert report.passes, report.summary()
    assert not any(difference.verdict == "not run" for difference in report.differences)
    recording, kinds = recorded(name), Counter(d.kind for d in report.differences)
    assert kinds["parameters"] >= sum(len(step.parameters) > 0 for step in recording.steps)
    gradients = sum(len(one.gradients) for one in recording.passes)
    assert bool(kinds["gradients"]) == bool(gradients)
    activations = sum(len(one.activations) for one in recording.passes)
    assert kinds["activations"] >= activations


def test_the_decoder_initialises_to_the_converted_tree(
    name: str, converted: Callable[[str], Path]
) -> None:
    config = load_config(converted(name))
    assert config.model is not None
    shapes = {path: leaf.shape for path, leaf in stored_parameters(converted(name)).items()}
    assert shapes == parameter_shapes(config.model)
    if not isinstance(config.model, BackboneConfig):
        return  # tests/efficientids_flax/core initialise recommenders
    assert shapes == initial_shapes(config.model)


@cache  # many recordings are of one model, stored in different ways
def initial_shapes(config: BackboneConfig) -> dict[str, tuple[int, ...]]:
    """Path -> shape of every parameter that a decoder makes."""
    decoder = Decoder(config)

    def everything(module: Decoder, ids: jax.Array) -> jax.Array:
        return module.logits(module(ids, inputs_indicator=jnp.zeros_like(ids)))

    made = jax.eval_shape(
        lambda: decoder.init(jax.random.key(0), np.zeros((1, 8), np.int32), method=everything)
    )
    return {path: leaf.shape for path, leaf in flatten(made["params"]).items()}


def test_own_values_agree(own: tuple[str, str]) -> None:
    report = parity(*own)
    hints = "".join(f"\nhint: {hint.cause}. Try: {hint.advice}" for hint in report.hints)
    assert report.passes, report.summary() + hints
