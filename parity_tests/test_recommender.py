"""The recommender against the real EfficientIDs system, from converted checkpoints.

Hidden states, scores of the whole catalogue, both losses and every gradient, with the checkpoint's own
parameters on the recorded batch.
"""

import json

import jax
import numpy as np
import pytest

from converters import load_converted
from efficientids_flax.config import EfficientIDSConfig
from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.recommender import Recommender
from efficientids_flax.load import flatten
from parity_tests.cases import read_outputs, unpack

# float32, relative to the largest magnitude of the recorded array: some tens of roundings of 6e-8
# (observed: forward at most 6e-7, gradients at most 1.1e-6).
FORWARD, GRADIENT = 2e-6, 4e-6

# What the tree does not tell, from the experiments' own configuration (their manifests).
SCENARIOS = {
    "b_everywhere": {},
    "d_correction_frozen_lm": {"use_correction": True},
    "g_stacked_layers": {},
    "i4_sep_emb_trainable_pos": {"soft_cap_logits": 30.0, "backbone.activation": "gelu_tanh"},
    "k_adam": {},
}


def difference(got, want) -> float:
    return float(np.abs(np.asarray(got) - want).max() / max(np.abs(want).max(), 1e-6))


@pytest.fixture(params=SCENARIOS)
def scenario(request, converted, tmp_path):
    name = request.param
    out = converted(name, SCENARIOS[name])
    params, _, config = load_converted(out, optimizer=False)
    assert isinstance(config.model, EfficientIDSConfig)
    clustering = ClusteringInfo.from_pickle(unpack(name, tmp_path) / "clustering.pkl")
    recorded = read_outputs(name)
    batch = {key[3:]: value for key, value in recorded.items() if key.startswith("in/")}
    return out, Recommender(config.model, clustering), params, batch, recorded


def test_matches_the_original(scenario):
    out, model, params, batch, recorded = scenario

    def run(module):
        return {
            "act/hidden": module.head_inputs(batch).hidden,
            "out/scores": module.scores(batch),
            "out/train_loss": module.loss(batch),
            "out/eval_loss": module.loss(batch, train=False),
        }

    with jax.default_matmul_precision("highest"):
        found = jax.jit(lambda params: model.apply({"params": params}, method=run))(params)
    for key, got in found.items():
        worst = difference(got, recorded[key])
        assert worst < FORWARD, f"first differs at {key}, by {worst:.1e}"


def test_gradients_match_the_original(scenario):
    out, model, params, batch, recorded = scenario

    def loss(params):
        return model.apply({"params": params}, batch, method=model.loss)

    with jax.default_matmul_precision("highest"):
        gradients = flatten(jax.jit(jax.grad(loss))(params))
    leaves = json.loads((out / "manifest.json").read_text())["leaves"]
    compared = 0
    for leaf in leaves:
        source = leaf["sources"][0].replace("mdl_vars/", "grad/")
        if source in recorded:  # frozen parameters have none
            compared += 1
            worst = difference(gradients[leaf["target"].removeprefix("params/")], recorded[source])
            assert worst < GRADIENT, f"gradient of {leaf['target']} differs by {worst:.1e}"
    assert compared == sum(key.startswith("grad/") for key in recorded) > 0
