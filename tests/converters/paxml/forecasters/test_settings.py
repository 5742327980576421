"""Settings of a TimesFM model from its tree, from public checkpoints, and from flags."""

import numpy as np
import pytest

from converters.arrays import LeafSpec
from converters.errors import MappingError, UnclearModelError
from converters.paxml.forecasters import forecaster_facts, infer_forecaster, published
from efficientids_flax.config.forecaster import DECILES
from tests.converters.forecasters import Sizes, shapes

Specs = dict[str, LeafSpec]
PUBLIC = Sizes(20, 1280, 1280, 16, 32, 128)


def specs(sizes: Sizes, prefix: str = "") -> Specs:
    found = {}
    for name, shape in shapes(sizes).items():
        path = f"mdl_vars/params/{prefix}{name}"
        found[path] = LeafSpec(path, shape, np.dtype(np.float32), shape, path)
    return found


def origins(told: dict[str, dict]) -> dict[str, str]:
    return {key: cause["from"] for key, cause in told.items()}


@pytest.mark.parametrize("prefix", ["", "core_layer/"])
def test_sizes_come_from_the_tree_and_the_rest_is_assumed(prefix: str):
    config, told = infer_forecaster(specs(Sizes(), prefix), {})
    assert (config.num_layers, config.model_dims, config.hidden_dims) == (2, 12, 20)
    assert (config.num_heads, config.head_dim, config.patch_length) == (3, 4, 4)
    assert (config.horizon_length, config.quantiles) == (8, DECILES)
    assert config.context_length == 512
    assumed = {key for key, origin in origins(told).items() if origin == "assumed"}
    assert assumed == {
        "horizon_length", "quantiles", "use_positional_embedding", "context_length"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("layers", "name", "positions", "context"),
    [(20, "timesfm-1.0-200m", True, 512), (50, "timesfm-2.0-500m", False, 2048)],
)
def test_public_sizes_are_recognised(layers: int, name: str, positions: bool, context: int):
    sizes = Sizes(layers, 1280, 1280, 16, 32, 128)
    notes: list[str] = []
    found = published(None, forecaster_facts(specs(sizes)), notes)
    config, told = infer_forecaster(specs(sizes), {}, found)
    assert config.use_positional_embedding is positions
    assert (config.context_length, config.horizon_length) == (context, 128)
    assert origins(told)["use_positional_embedding"] == f"experiment {name}"
    assert "assumed" not in origins(told).values()
    assert name in notes[0]


@pytest.mark.parametrize(
    "other",
    [Sizes(21, 1280, 1280, 16, 32, 128), Sizes(20, 1280, 1280, 16, 16, 128),
     Sizes(20, 1280, 1280, 16, 32, 64), Sizes(20, 1280, 1280, 20, 32, 128)],
)  # fmt: skip
def test_other_sizes_are_not_taken_for_public_ones(other: Sizes):
    assert published(None, forecaster_facts(specs(other)), []) is None


def test_a_flag_goes_before_a_public_checkpoint():
    found = published(None, forecaster_facts(specs(PUBLIC)), [])
    config, told = infer_forecaster(specs(PUBLIC), {"use_positional_embedding": "false"}, found)
    assert config.use_positional_embedding is False
    assert origins(told)["use_positional_embedding"] == "given"


def test_horizon_follows_from_quantiles_and_the_reverse():
    sizes = Sizes(horizon=8, quantiles=3)
    config, told = infer_forecaster(specs(sizes), {"quantiles": [0.1, 0.5, 0.9]})
    assert (config.horizon_length, origins(told)["horizon_length"]) == (8, "tree")
    config, told = infer_forecaster(specs(sizes), {"horizon_length": 8})
    assert (len(config.quantiles), origins(told)["quantiles"]) == (3, "assumed")
    config, _ = infer_forecaster(specs(Sizes(quantiles=0)), {"quantiles": "[]"})
    assert (config.quantiles, config.num_outputs) == ((), 1)


def test_a_number_of_outputs_that_ten_does_not_divide_is_assumed_to_be_something_that_fits():
    config, told = infer_forecaster(specs(Sizes(horizon=8, quantiles=3)), {})
    assert config.horizon_length * config.num_outputs == 32
    assert origins(told)["quantiles"] == "assumed"


@pytest.mark.parametrize(
    ("flags", "text"),
    [({"num_heads": 4}, "num_heads: the tree has 3"),
     ({"patch_length": 8}, "patch_length: the tree has 4"),
     ({"horizon_length": 7}, "7 does not divide the 80 outputs"),
     ({"horizon_length": 0}, "0 does not divide"),
     ({"quantiles": [0.5, 0.9]}, "2 quantiles and the mean do not make the 80 outputs"),
     ({"horizon_length": 4, "quantiles": [0.5]}, "horizon_length 4 and 1 quantiles"),
     ({"quantiles": 3}, "expected a list"),
     ({"horizon_length": "long"}, "expected int"),
     ({"context_length": 30}, "expected a multiple of patch_length = 4"),
     ({"use_positions": True}, "did you mean use_positional_embedding")],
)  # fmt: skip
def test_flags_that_cannot_be_are_told(flags: dict, text: str):
    with pytest.raises(MappingError, match=text):
        infer_forecaster(specs(Sizes()), flags)


def test_a_tree_of_two_models_is_told():
    wrong = specs(Sizes())
    path = "mdl_vars/params/stacked_transformer_layer/x_layers_1/ff_layer/ffn_layer1/linear/w"
    wrong[path] = LeafSpec(path, (12, 21), np.dtype(np.float32), (12, 21), path)
    with pytest.raises(UnclearModelError, match=r"hidden_dims: .* gives 20, .* gives 21"):
        infer_forecaster(wrong, {})


def test_a_name_that_no_checkpoint_has_is_told():
    with pytest.raises(MappingError, match=r"did you mean timesfm-1\.0-200m"):
        published("timesfm-1.0-200M", forecaster_facts(specs(PUBLIC)), [])


def test_a_named_checkpoint_of_other_sizes_gives_its_settings():
    notes: list[str] = []
    found = published("timesfm-2.0-500m", forecaster_facts(specs(Sizes())), notes)
    config, told = infer_forecaster(specs(Sizes()), {}, found)
    assert config.use_positional_embedding is False
    assert origins(told)["horizon_length"] == "assumed"  # 128 does not fit
    assert "num_layers 2, not 50" in notes[0]
