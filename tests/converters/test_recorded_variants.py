"""Variants of models and optimizers, recorded from the real PAXml 1.4.0 by `parity_tests/record`.

Each leaf is what PAXml itself restored (the manifest's digests), and each conversion what
`expected` gives, or the few lines below where that oracle has no rule: layers in blocks, in
circular pipelines and over two axes; optimizers that are none of ours; quantized weights.
"""

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from converters import convert, open_checkpoint
from converters.plan import Plan
from efficientids_flax import load_model
from tests.converters import expected, stored
from tests.paths import RECORDINGS

Recording = Callable[[str], Path]

VARIANTS = RECORDINGS / "variants"
NAMES = sorted(path.name.removesuffix(".tar.xz") for path in VARIANTS.iterdir())
BETAS = (0.9, 0.99)  # what all recorded jobs trained with
RAW = "state/opt_states_raw/"

# Cases for which the oracle has rules.
PLAIN = (
    "AdafactorFrozenRepeat_flax", "AdafactorFrozenRepeat_gda", "AdafactorNoMomentum_gda",
    "AdafactorUnfactored_flax", "Bert_gda", "FusedBiasRotaryRepeat_flax",
    "EncoderDecoder_flax", "GptHybrid_gda", "GptPostNorm_ocdbt", "GptPostSkipRelative_gda",
    "GptRepeatUnderscore_flax", "GptRepeatUnderscore_gda", "GptRepeatUnderscore_ocdbt",
    "GqaRepeat_gda", "MoeGatedAdafactor_gda", "PaddedAdafactorRepeat_gda", "PaddedAdafactor_gda",
    "PaddedSquare_gda", "ResNet_ocdbt", "Sgd_flax",
)  # fmt: skip

# Where layer i of the model lies: name of its layer, index of its leading axes.
LAYERS: dict[str, tuple[str, int, Callable[[int], tuple[str, tuple[int, ...]]]]] = {
    "MoeRepeatBlocks_flax": ("repeat/sub/", 4, lambda i: (f"x_layers_{i % 2}", (i // 2,))),
    "PipeRepeat_gda": ("pipeline/body/repeat/sub/", 6, lambda i: ("x_layers_0", divmod(i, 3))),
    "PipeCircular_gda": ("pipeline/body/", 4, lambda i: ("x_layers_0", divmod(i, 2))),
    "NdRepeat_gda": ("repeat/sub/", 6, lambda i: ("x_layers_0", divmod(i, 2))),
}

# Expected optimizer: parts below `state/optimizer/`, and states that are kept raw.
OPTIMIZERS: dict[str, tuple[set[str], set[str]]] = {
    "Accumulated_gda": (set(), {"0/2"}),
    "Adagrad_gda": (set(), {"0/2"}),
    "Lamb_flax": (set(), {"0/2"}),
    "Lion_gda": (set(), {"0/2"}),
    "OptaxAdafactor_flax": (set(), {"0/2"}),
    "OptaxAdam_flax": ({"adam", "schedule"}, set()),
    "TwoOptimizersRepeat_ocdbt": (set(), {"0/no_prefix", "0/p#3#i-1"}),
    "TwoOptimizers_flax": (set(), {"0/0", "0/1"}),
}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "Bert_gda": {"attention_mask": "bidirectional", "qkv_bias": True},
    "Bf16Repeat_flax": {"dtype": "bfloat16", "param_dtype": "bfloat16", "gated_mlp": True},
    "FusedBiasRotaryRepeat_flax": {
        "fused_qkv": True, "qkv_bias": True, "attention_out_bias": True, "num_layers": 3,
        "position_embedding": "learned", "max_positions": 20, "rotary.pairing": "half_split",
    },
    "GptHybrid_gda": {"norm_policy": "primer_hybrid"},
    "GptPostNorm_ocdbt": {"norm_policy": "post", "qkv_bias": True, "attention_out_bias": True},
    "GptPostSkipRelative_gda": {"norm_policy": "post_skip", "relative_bias.num_buckets": 32},
    "GqaRepeat_gda": {"num_heads": 4, "num_kv_heads": 2, "norm": "rms_norm", "scan_layers": True},
    "MoeGatedAdafactor_gda": {"moe.gated": True, "moe.layers": [1], "moe.num_experts": 3},
    "MoeRepeatBlocks_flax": {
        "num_layers": 4, "layers_per_block": 2, "moe.layers": [1, 3], "moe.hidden_dims": 12,
    },
    "NdRepeat_gda": {"num_layers": 6, "scan_layers": True, "layers_per_block": 1},
    "PipeCircular_gda": {"num_layers": 4, "scan_layers": True},
    "PipeRepeat_gda": {"num_layers": 6, "scan_layers": True},
    "QuantInt8Repeat_flax": {"num_layers": 3, "model_dims": 16, "hidden_dims": 24},
}  # fmt: skip


def described(case: Path) -> Mapping[str, Mapping[str, Any]]:
    return stored.read_manifest(case)["leaves"]


def source_of(case: Path) -> stored.Tree:
    """Leaves of a recording, read without the code under test."""
    return stored.read_paxml(stored.step_of(case / "checkpoint"), described(case))


class Converted(NamedTuple):
    """A conversion: its folder, which is not to be changed, `config.json` and its plan."""

    out: Path
    config: dict[str, Any]
    plan: Plan

    @classmethod
    def of(cls, case: Path, out: Path, **options: Any) -> "Converted":
        report = convert(case / "checkpoint", out, **options)
        return cls(out, json.loads((out / "config.json").read_text()), report.plan)


@pytest.fixture(scope="module")
def converted(
    recording: Recording, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Converted]:
    """`converted(name)`: a recording, converted without options, once for all tests."""

    @cache
    def find(name: str) -> Converted:
        return Converted.of(recording(name), tmp_path_factory.mktemp(name) / "out")

    return find


@pytest.mark.parametrize("name", NAMES)
def test_every_leaf_is_what_paxml_restores(name: str, recording: Recording):
    wanted = described(recording(name))
    leaves = open_checkpoint(recording(name) / "checkpoint").leaves
    assert set(leaves) == set(wanted)
    for path, about in wanted.items():
        values = stored.cast_like(leaves[path].read(), about["dtype"])
        found = {
            "shape": list(values.shape),
            "dtype": values.dtype.name,
            "sha256": stored.leaf_digest(values),
        }
        assert found == about, path


@pytest.mark.parametrize("name", NAMES)
def test_no_leaf_is_lost_and_none_is_changed_by_a_rename(
    name: str, recording: Recording, converted: Callable[[str], Converted]
):
    recorded, found = described(recording(name)), converted(name)
    leaves = stored.read_manifest(found.out)["leaves"]
    sources = {path for leaf in leaves for path in leaf["sources"]}
    assert sources | {path for path, _ in found.plan.ignored} == set(recorded)
    for leaf in leaves:
        about = recorded[leaf["sources"][0]]
        if leaf["operation"] == "rename" and leaf["dtype"] == about["dtype"]:
            found = (leaf["shape"], leaf["sha256"])
            assert found == (about["shape"], about["sha256"]), leaf["target"]


@pytest.mark.parametrize("name", PLAIN)
def test_converts_bit_for_bit(
    name: str, recording: Recording, converted: Callable[[str], Converted]
):
    wanted = expected.converted(source_of(recording(name)), BETAS)
    assert expected.difference(stored.read_output(converted(name).out), wanted) == []


def test_the_separator_of_groups_and_the_layout_do_not_matter(
    converted: Callable[[str], Converted],
):
    outs = [converted(f"GptRepeatUnderscore_{form}").out for form in ("gda", "ocdbt", "flax")]
    first, *rest = map(stored.digests, outs)
    assert any(target.startswith("state/optimizer/adam/mu/layers/") for target in first)
    assert all(other == first for other in rest)


@pytest.mark.parametrize("scan_layers", [None, False])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_in_the_order_of_the_model(
    name: str, scan_layers: bool | None, recording: Recording, tmp_path: Path
):
    place, count, find = LAYERS[name]
    source = source_of(recording(name))
    made = Converted.of(recording(name), tmp_path / "out", scan_layers=scan_layers)
    found = stored.read_output(made.out)
    per_block = made.config["model"]["layers_per_block"]
    (group,) = {path.split("/")[2] for path in source if "/p#" in path}
    moments = {
        "params/": ("mdl_vars/params/", None),
        "state/optimizer/adam/mu/": (f"opt_states/0/{group}/2/m/params/", BETAS[0]),
        "state/optimizer/adam/nu/": (f"opt_states/0/{group}/2/v/params/", BETAS[1]),
    }
    for target, (start, beta) in moments.items():
        for layer in range(count):
            own, index = find(layer)
            root = f"{start}lm/transformer/{place}{own}/"
            leaves = {path.removeprefix(root): path for path in source if path.startswith(root)}
            assert len(leaves) > 10
            for leaf, path in leaves.items():
                wanted = source[path][index]
                if beta is not None:
                    wanted = expected.debiased(wanted, np.array(3), beta)
                end = expected.named(leaf)
                if scan_layers is False:
                    values = found[f"{target}layers_{layer}/{end}"]
                elif per_block == 1:
                    values = found[f"{target}layers/{end}"][layer]
                else:
                    block = f"layers/block_{layer % per_block}/{end}"
                    values = found[target + block][layer // per_block]
                np.testing.assert_array_equal(values, wanted, f"{target}{layer}/{leaf}")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_states_that_optax_has_not_stay_raw(
    name: str, recording: Recording, converted: Callable[[str], Converted]
):
    out, config, plan = converted(name)
    found = stored.read_output(out)
    source = source_of(recording(name))
    parts, raw = OPTIMIZERS[name]
    assert {path.split("/")[2] for path in found if path.startswith("state/optimizer/")} == parts
    kept = {path.removeprefix(RAW) for path in found if path.startswith(RAW)}
    assert {"/".join(path.split("/")[:2]) for path in kept} == raw
    for path in kept:
        np.testing.assert_array_equal(found[RAW + path], source[f"opt_states/{path}"], path)
    assert (config["optimizer"] is None) == bool(raw)
    assert any("kept as it is" in note for note in plan.notes) == bool(raw)


def test_moments_of_optax_adam_are_copied(
    recording: Recording, converted: Callable[[str], Converted]
):
    """`Adam(sharded_adam=False)` is `optax.adam`, whose moments are not bias-corrected."""
    out, config, _ = converted("OptaxAdam_flax")
    assert (config["optimizer"]["name"], config["optimizer"]["clip_threshold"]) == ("adam", None)
    found = stored.read_output(out)
    source = source_of(recording("OptaxAdam_flax"))
    names = {"mdl_vars/params/": "params/"}
    for group in ("no_prefix", "p#3#i-1"):
        for field in ("mu", "nu"):
            start = f"opt_states/0/{group}/2/0/{field}/params/"
            names[start] = f"state/optimizer/adam/{field}/"
    for start, target in names.items():
        own = {path.removeprefix(start): v for path, v in source.items() if path.startswith(start)}
        assert own
        for path, values in expected.renamed(own, "transformer_lm").items():
            np.testing.assert_array_equal(found[target + path], values, target + path)
    assert found["state/optimizer/schedule/count"] == 3


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_configuration(name: str, converted: Callable[[str], Converted]):
    config = converted(name).config
    assert config["family"] == "transformer_lm"
    for key, wanted in CONFIGURATIONS[name].items():
        found: Any = config["model"]
        for part in key.split("."):
            found = found[part]
        assert found == wanted, key


@pytest.mark.parametrize(
    ("name", "told"),
    [("EncoderDecoder_flax", None), ("ResNet_ocdbt", None),
     ("AllDtypes_gda", None), ("Ngrammer_gda", "lm/ngrammer/ngram_layer")],
)  # fmt: skip
def test_other_models_keep_their_names(
    name: str, told: str | None, recording: Recording, converted: Callable[[str], Converted]
):
    out, config, plan = converted(name)
    assert (config["family"], config["model"]) == ("generic", None)
    found = {leaf["target"] for leaf in stored.read_manifest(out)["leaves"]}
    start = "mdl_vars/params/"
    wanted = {p.removeprefix(start) for p in described(recording(name)) if p.startswith(start)}
    assert {p.removeprefix("params/") for p in found if p.startswith("params/")} == wanted
    if told is not None:
        assert any(told in note for note in plan.notes)


@pytest.mark.parametrize("form", ["gda", "ocdbt", "flax"])
def test_every_dtype_arrives(
    form: str, recording: Recording, converted: Callable[[str], Converted]
):
    found = stored.read_output(converted(f"AllDtypes_{form}").out)
    source = source_of(recording(f"AllDtypes_{form}"))
    kinds = set()
    for path, values in source.items():
        target = path.replace("mdl_vars/params/", "params/") if "/params/" in path else (
            "state/" + path.replace("mdl_vars/", "collections/")
        )  # fmt: skip
        assert found[target].dtype == values.dtype, path
        assert found[target].tobytes() == values.tobytes(), path
        kinds.add(values.dtype.name)
    assert kinds >= {"bool", "int8", "uint8", "int32", "uint32", "float16", "bfloat16"}


@pytest.mark.parametrize(
    "name",
    ["QuantInt8_gda", "QuantInt8Repeat_gda", "QuantInt8Repeat_flax", "QuantAsymmetric_ocdbt"],
)
def test_dequantized_weights_are_what_praxis_multiplies_by(
    name: str, recording: Recording, tmp_path: Path
):
    wanted = stored.read_manifest(recording(name))["dequantized"]
    made = Converted.of(recording(name), tmp_path / "out", dequantize=True)
    assert made.config["model"] is not None
    leaves = {
        path: leaf for leaf in stored.read_manifest(made.out)["leaves"] for path in leaf["sources"]
    }
    assert len(wanted) >= 7
    for path, about in wanted.items():
        leaf = leaves[f"mdl_vars/params/{path}"]
        found = {key: leaf[key] for key in ("shape", "dtype", "sha256")}
        assert found == about, path


@pytest.mark.parametrize("name", ["QuantInt4Packed_gda", "QuantBlocks_gda"])
def test_packed_weights_and_weights_in_blocks_become_numbers(
    name: str, recording: Recording, tmp_path: Path
):
    """Each int32 has 4-bit numbers from the lowest bits up; each column of a block has a scale.

    In blocks [S, C, N, H], Praxis' attention sums over the same axis indices as without blocks, so
    its scales are [C, N, H].
    """
    made = Converted.of(recording(name), tmp_path / "out", dequantize=True)
    assert made.config["model"] is not None
    found, source = stored.read_output(made.out), source_of(recording(name))
    layer, place = "params/layers_1/", "mdl_vars/params/lm/transformer/x_layers_1/"
    for target, leaf in (
        ("mlp/up/kernel", "ff_layer/ffn_layer1/linear/w"),
        ("mlp/down/kernel", "ff_layer/ffn_layer2/linear/w"),
        ("attention/query/kernel", "self_attention/query/w"),
        ("attention/out/kernel", "self_attention/post/w"),
    ):
        weight, scale = source[place + leaf], source[f"{place}{leaf}_quantized_scale"]
        kernel = found[layer + target]
        if weight.dtype == np.int32:
            bits = weight[:, None] >> np.arange(0, 32, 4).reshape(-1, *[1] * (weight.ndim - 1))
            weight = ((bits & 15) ^ 8) - 8
            weight = weight.reshape(-1, *weight.shape[2:])
        elif "ffn" in leaf:
            scale = scale[:, None]
        wanted = weight * (scale[:, None, None] if "post" in leaf else scale)
        np.testing.assert_array_equal(kernel, wanted.astype(np.float32).reshape(kernel.shape))


@pytest.mark.parametrize("name", ["QuantInt4Packed_gda", "QuantBlocks_gda"])
def test_packed_weights_are_kept_as_they_are_stored(
    name: str, recording: Recording, converted: Callable[[str], Converted]
):
    out, config, plan = converted(name)
    assert config["family"] == "transformer_lm"
    assert (config["model"]["model_dims"], config["model"]["hidden_dims"]) == (16, 24)
    assert any("--dequantize makes them float32" in note for note in plan.notes)
    found = stored.read_output(out)
    source = source_of(recording(name))
    place = "lm/transformer/x_layers_1/ff_layer/ffn_layer1/linear/w"
    for end, target in (("", "kernel"), ("_quantized_scale", "kernel_scale")):
        np.testing.assert_array_equal(
            found[f"params/layers_1/mlp/up/{target}"], source[f"mdl_vars/params/{place}{end}"]
        )
    with pytest.raises(ValueError, match=r"weights are quantized .* --dequantize"):
        load_model(out)
