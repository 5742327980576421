"""The decoder against the real PAXml, on checkpoints that went through the converter.

What is compared is the whole chain: reading, mapping, the inferred configuration, the model. Each
case is a real checkpoint; the outputs are those of PAXml with the checkpoint's own parameters.
"""

from dataclasses import replace

import jax
import numpy as np
import pytest

from converters import load_converted
from efficientids_flax.backbone import Decoder
from efficientids_flax.config import BackboneConfig
from efficientids_flax.load import flatten
from efficientids_flax.parameters import parameter_shapes
from parity_tests.cases import output_names, read_outputs
from parity_tests.compare import compare_decoder, first_above

CASES = output_names("paxml")

# The job's dump is not there: what the tree does not tell and PAXml's defaults do not give.
WITHOUT_DUMP = {"GptRepeat_v00gda_gzip": {"activation": "gelu_tanh"}}


@pytest.fixture(scope="module")
def model(request, converted):
    params, _, config = load_converted(
        converted(request.param, WITHOUT_DUMP.get(request.param)), optimizer=False
    )
    assert isinstance(config.model, BackboneConfig)
    return request.param, config.model, params


@pytest.mark.parametrize("model", CASES, indirect=True)
def test_matches_paxml(model):
    name, config, params = model
    differences = compare_decoder(config, params, read_outputs(name))
    assert differences[-1].name == "out/logits"
    worst = first_above(differences)
    assert worst is None, f"{name}: first differs at {worst.name}, by {worst.worst:.1e}"


@pytest.mark.parametrize("model", CASES, indirect=True)
def test_initialises_to_the_converted_tree(model):
    _, config, params = model
    decoder = Decoder(config)

    def everything(module, ids):
        return module.logits(module(ids))

    made = jax.eval_shape(
        lambda: decoder.init(jax.random.key(0), np.zeros((1, 8), np.int32), method=everything)
    )
    shapes = {path: leaf.shape for path, leaf in flatten(made["params"]).items()}
    assert shapes == {path: leaf.shape for path, leaf in flatten(params).items()}
    assert shapes == parameter_shapes(config)


def test_a_wrong_setting_is_found(converted):
    params, _, config = load_converted(converted("PalmLike_gda"), optimizer=False)
    assert isinstance(config.model, BackboneConfig)
    assert config.model.rotary is not None
    rotary = replace(config.model.rotary, pairing="interleaved")
    wrong = replace(config.model, rotary=rotary)
    worst = first_above(compare_decoder(wrong, params, read_outputs("PalmLike_gda")))
    assert worst is not None
    assert worst.name == "act/layers_0"
