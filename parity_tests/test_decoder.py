"""The decoder against the real PAXml, on checkpoints that went through the converter.

What is compared is the whole chain: reading, mapping, the inferred configuration, the model. Each
case is a real checkpoint; the outputs are those of PAXml with the checkpoint's own parameters.
"""

import jax
import numpy as np
import pytest

from converters import load_converted
from efficientids_flax.backbone import Decoder
from efficientids_flax.config import BackboneConfig
from efficientids_flax.load import flatten
from efficientids_flax.parameters import parameter_shapes
from parity_tests.cases import output_names, read_outputs

CASES = output_names("paxml")

# Largest difference relative to the largest magnitude of the recorded array. float32: some tens of
# roundings of 6e-8 (observed: at most 8e-7). bfloat16: PAXml rounds between other operations than
# XLA's fusions do today; a step of bfloat16 is 8e-3 (observed: 2e-2).
TOLERANCE = {"float32": 2e-6, "bfloat16": 4e-2}

# The job's dump is not there: what the tree does not tell and PAXml's defaults do not give.
WITHOUT_DUMP = {"GptRepeat_v00gda_gzip": {"activation": "gelu_tanh"}}


def forward(decoder: Decoder, params, recorded):
    """Logits [B, T, V] and every layer's output."""

    def run(module, *args, **kwargs):
        return module.logits(module(*args, **kwargs))

    optional = {"segment_ids": "in/segment_ids", "positions": "in/segment_pos"}
    return decoder.apply(
        {"params": params},
        recorded["in/ids"],
        paddings=recorded["in/paddings"],
        **{name: recorded[key] for name, key in optional.items() if key in recorded},
        method=run,
        capture_intermediates=True,
        mutable=["intermediates"],
    )


@pytest.mark.parametrize("name", CASES)
def test_matches_paxml(name, converted):
    params, _, config = load_converted(converted(name, WITHOUT_DUMP.get(name)), optimizer=False)
    assert isinstance(config.model, BackboneConfig)
    recorded = read_outputs(name)
    with jax.default_matmul_precision("highest"):
        logits, state = jax.jit(forward, static_argnums=0)(Decoder(config.model), params, recorded)
    seen = {
        key.removesuffix("/__call__"): value[0]
        for key, value in flatten(state["intermediates"]).items()
        if key.count("/") == 1
    }
    # In the order of the computation, so that the first to differ is named.
    order = sorted(key for key in recorded if key.startswith("act/layers"))
    order += [key for key in ("act/final_norm",) if key in recorded]
    found = [(key, seen[key.removeprefix("act/")], recorded[key]) for key in order]
    found.append(("out/logits", logits, recorded["out/logits"]))
    for key, got, stored in found:
        want = stored.astype(np.float32)
        worst = np.abs(np.asarray(got, np.float32) - want).max() / np.abs(want).max()
        tolerance = TOLERANCE[config.model.dtype]
        assert worst < tolerance, f"{name}: first differs at {key}, by {worst:.1e}"


@pytest.mark.parametrize("name", CASES)
def test_initialises_to_the_converted_tree(name, converted):
    params, _, config = load_converted(converted(name, WITHOUT_DUMP.get(name)), optimizer=False)
    assert isinstance(config.model, BackboneConfig)
    decoder = Decoder(config.model)
    ids = np.zeros((1, 8), np.int32)

    def everything(module, ids):
        return module.logits(module(ids))

    made = jax.eval_shape(lambda: decoder.init(jax.random.key(0), ids, method=everything))
    shapes = {path: leaf.shape for path, leaf in flatten(made["params"]).items()}
    assert shapes == {path: leaf.shape for path, leaf in flatten(params).items()}
    assert shapes == parameter_shapes(config.model)
