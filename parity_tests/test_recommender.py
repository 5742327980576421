"""The recommender against the real EfficientIDs system, from converted checkpoints.

Hidden states, scores of the whole catalogue, both losses and every gradient, with the checkpoint's
own parameters on the recorded batch.
"""

import pytest

from converters import load_converted
from efficientids_flax.config import EfficientIDSConfig
from efficientids_flax.core.clustering import ClusteringInfo
from parity_tests.cases import read_outputs, unpack
from parity_tests.cli import sources_of
from parity_tests.compare import compare_gradients, compare_recommender, first_above

# What the tree does not tell, from the experiments' own configuration (their manifests).
SCENARIOS = {
    "b_everywhere": {},
    "d_correction_frozen_lm": {"use_correction": True},
    "g_stacked_layers": {},
    "i4_sep_emb_trainable_pos": {"soft_cap_logits": 30.0, "backbone.activation": "gelu_tanh"},
    "k_adam": {},
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_matches_the_original(name, converted, tmp_path):
    out = converted(name, SCENARIOS[name])
    params, _, config = load_converted(out, optimizer=False)
    assert isinstance(config.model, EfficientIDSConfig)
    clustering = ClusteringInfo.from_pickle(unpack(name, tmp_path) / "clustering.pkl")
    recorded = read_outputs(name)
    forward = compare_recommender(config.model, clustering, params, recorded)
    gradients = compare_gradients(config.model, clustering, params, recorded, sources_of(out))
    assert len(gradients) == sum(key.startswith("grad/") for key in recorded) > 0
    worst = first_above([*forward, *gradients])
    assert worst is None, f"{name}: first differs at {worst.name}, by {worst.worst:.1e}"
