"""The converted parameters under Flax NNX: the same dict through its bridge."""

import jax
import numpy as np
from flax import nnx

from efficientids_flax.backbone import Decoder
from efficientids_flax.config import BackboneConfig

CONFIG = BackboneConfig(
    vocab_size=24, num_layers=2, model_dims=8, hidden_dims=16, num_heads=2, num_kv_heads=2,
    head_dim=4, scan_layers=True,
)  # fmt: skip
IDS = np.asarray([[1, 5, 3], [2, 2, 7]], np.int32)


def test_linen_parameters_run_in_an_nnx_module():
    decoder = Decoder(CONFIG)

    def logits(module, ids):
        return module.logits(module(ids))

    params = decoder.init(jax.random.key(0), IDS, method=logits)["params"]
    want = decoder.apply({"params": params}, IDS)

    module = nnx.bridge.ToNNX(decoder, rngs=nnx.Rngs(1))
    module.lazy_init(IDS)
    # Call by call NNX makes only what the call uses: the head's bias is no part of hidden states.
    nnx.update(module, nnx.State(jax.tree.map(nnx.Param, params)))
    np.testing.assert_array_equal(module(IDS), want)
