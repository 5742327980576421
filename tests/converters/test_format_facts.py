"""What is known of PAXml's arrays, fact by fact, as conversions of recorded checkpoints show it.

Letters: B batch, D model width, V vocabulary, N heads, H head width, L stacked layers.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import optax
import pytest

from converters import convert
from tests.converters import stored, synthetic

Recording = Callable[[str], Path]


class Conversion:
    """A conversion of a recording: its source leaves, its output, its configuration."""

    def __init__(self, case: Path, out: Path, **plan: Any) -> None:
        self.report = convert(case / "checkpoint", out, **plan)
        self.described = stored.read_manifest(case)["leaves"]
        self.source = stored.read_paxml(stored.step_of(case / "checkpoint"), self.described)
        self.output = stored.read_output(out)
        self.manifest = stored.read_manifest(out)
        self.config = json.loads((out / "config.json").read_text())

    @property
    def model(self) -> dict[str, Any]:
        return self.config["model"]

    def same(self, target: str, source: str) -> bool:
        """Whether a parameter has exactly the bits of its source."""
        mine, theirs = self.output[f"params/{target}"], self.source[f"mdl_vars/params/lm/{source}"]
        return mine.shape == theirs.shape and mine.tobytes() == theirs.tobytes()

    def cause(self, name: str) -> str:
        """The origin of a value in the configuration."""
        return self.manifest["config"]["model"][name]["from"]


@pytest.fixture(scope="module")
def converted(
    recording: Recording, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Conversion]:
    """`converted(name, ...)`: converted once for all facts that it shows; do not change it."""
    known: dict[tuple[str, str], Conversion] = {}

    def make(name: str, **plan: Any) -> Conversion:
        key = name, repr(plan)
        if key not in known:
            known[key] = Conversion(recording(name), tmp_path_factory.mktemp(name) / "out", **plan)
        return known[key]

    return make


Make = Callable[..., Conversion]


@pytest.mark.parametrize("steps", [1, 7, 1000])
def test_fact_1_adam_moments_are_stored_bias_corrected(steps: int, tmp_path: Path):
    """optax's state after some steps, divided as Praxis does, comes back from a conversion."""
    beta1, beta2 = 0.9, 0.99
    shape = (5, 3)
    transform = optax.scale_by_adam(beta1, beta2)
    state = transform.init(np.zeros(shape, np.float32))
    generator = np.random.default_rng(steps)
    for _ in range(min(steps, 20)):
        _, state = transform.update(generator.standard_normal(shape, np.float32), state)
    count = steps
    leaves = {
        "step": np.array(count, np.uint32),
        "mdl_vars/params/w": np.zeros(shape, np.float32),
        "opt_states/0/2/count": np.array(count, np.int32),
        "opt_states/0/2/m/params/w": np.float32(np.float64(state.mu) / (1 - beta1**count)),
        "opt_states/0/2/v/params/w": np.float32(np.float64(state.nu) / (1 - beta2**count)),
    }
    step = synthetic.write_step(tmp_path / f"checkpoint_{count:08d}", leaves)
    convert(step, tmp_path / "out", overrides={"beta1": beta1, "beta2": beta2})
    output = stored.read_output(tmp_path / "out")
    np.testing.assert_allclose(output["state/optimizer/adam/mu/w"], state.mu, rtol=2e-7)
    np.testing.assert_allclose(output["state/optimizer/adam/nu/w"], state.nu, rtol=2e-7)
    straight = leaves["opt_states/0/2/m/params/w"]
    assert (steps < 1000) == (not np.allclose(output["state/optimizer/adam/mu/w"], straight))


def test_fact_1_counts_of_stacked_groups_run_along_their_layers(tmp_path: Path):
    counts = np.array([3, 3], np.int32)
    weight = np.ones((2, 4), np.float32)
    leaves = {
        "step": np.array(3, np.uint32),
        "mdl_vars/params/w": weight,
        "opt_states/0/p#2#i-1/2/count": counts,
        "opt_states/0/p#2#i-1/2/m/params/w": weight,
        "opt_states/0/p#2#i-1/2/v/params/w": weight,
    }
    step = synthetic.write_step(tmp_path / "checkpoint_00000003", leaves)
    convert(step, tmp_path / "out", overrides={"beta1": 0.5, "beta2": 0.75})
    output = stored.read_output(tmp_path / "out")
    assert output["state/optimizer/adam/mu/w"].tolist() == [[0.875] * 4] * 2
    assert output["state/optimizer/adam/nu/w"].tolist() == [[1 - 0.75**3] * 4] * 2
    assert output["state/optimizer/adam/count"] == 3


def test_fact_2_average_of_the_weights_is_kept_as_it_is(converted: Make):
    found = converted("LlamaRepeatEma_v00flax_file", overrides={"beta1": 0.9, "beta2": 0.99})
    averages = {p: v for p, v in found.source.items() if "/ema/params/" in p}
    assert averages
    digests = sorted(stored.leaf_digest(v) for v in averages.values())
    kept = {p: v for p, v in found.output.items() if p.startswith("state/optimizer/ema/ema/")}
    assert sorted(stored.leaf_digest(v) for v in kept.values()) == digests
    (count,) = {
        int(c) for p, v in found.source.items() if p.endswith("/count") for c in np.ravel(v)
    }
    assert found.output["state/optimizer/ema/count"] == count


def test_fact_3_scales_stay_as_stored_and_the_configuration_reads_them(converted: Make):
    layer, rms = converted("GptLearned_gda"), converted("LlamaRepeat_gda")
    assert (layer.model["norm"], layer.model["norm_scale_plus_one"]) == ("layer_norm", True)
    assert (rms.model["norm"], rms.model["norm_scale_plus_one"]) == ("rms_norm", False)
    assert layer.cause("norm_scale_plus_one") == rms.cause("norm_scale_plus_one") == "dump"
    for found in (layer, rms):
        assert found.same("final_norm/scale", "final_ln/scale")
    assert abs(layer.output["params/final_norm/scale"]).max() < 0.5  # around nought
    assert rms.output["params/final_norm/scale"].min() > 0.5  # around one


def test_fact_4_axes_of_attention_stay(converted: Make):
    repeated, fused = converted("LlamaRepeat_gda"), converted("b_everywhere")
    shared, several = converted("PalmLike_gda"), converted("Llama_v11orbaxnames", optimizer="none")
    heads, width = 4, 8
    model = several.model["model_dims"]
    for name, source in (("out", "post"), ("query", "query"), ("key", "key"), ("value", "value")):
        target = f"layers_0/attention/{name}/kernel"
        assert several.output[f"params/{target}"].shape == (model, heads, width)
        assert several.same(target, f"transformer/x_layers_0/self_attention/{source}/w")
        stacked = repeated.output[f"params/layers/attention/{name}/kernel"]
        assert stacked.shape == (3, model, heads, width)
    for name in ("key", "value"):  # one head for all queries
        target = f"layers_0/attention/{name}/kernel"
        assert shared.output[f"params/{target}"].shape == (model, width)
        assert shared.same(target, f"transformer/x_layers_0/self_attention/{name}/w")
    assert shared.model["multi_query"]
    qkv = fused.output["params/pretrained_lm/layers/attention/qkv/kernel"]
    assert qkv.shape == (2, 3, 32, heads, width)
    own = converted("GptLearned_gda").output["params/layers_0/attention/qkv/kernel"]
    assert own.shape == (3, 32, heads, width)


def test_fact_5_per_dim_scale_replaces_the_root_of_the_head_width(converted: Make):
    gpt, llama = converted("GptLearned_gda"), converted("LlamaRepeat_gda")
    assert gpt.model["query_scaling"] == "per_dim_scale"
    assert gpt.same(
        "layers_1/attention/per_dim_scale",
        "transformer/x_layers_1/self_attention/per_dim_scale/per_dim_scale",
    )
    assert llama.model["query_scaling"] == "inverse_sqrt_head_dim"
    assert not [path for path in llama.output if "per_dim_scale" in path]


def test_fact_6_the_gate_is_ffn_layer1_gate(converted: Make):
    found = converted("LlamaAdafactor_gda")
    layer = "transformer/x_layers_1/ff_layer"
    assert found.model["gated_mlp"]
    assert found.same("layers_1/mlp/gate/kernel", f"{layer}/ffn_layer1_gate/linear/w")
    assert found.same("layers_1/mlp/up/kernel", f"{layer}/ffn_layer1/linear/w")
    assert found.same("layers_1/mlp/down/kernel", f"{layer}/ffn_layer2/linear/w")
    assert not converted("GptLearned_gda").model["gated_mlp"]


def test_fact_7_tied_and_separate_tables(converted: Make):
    tied, separate = converted("GptLearned_gda"), converted("LlamaRepeat_gda")
    vocabulary, width = tied.model["vocab_size"], tied.model["model_dims"]
    assert tied.model["tied_embeddings"]
    assert not separate.model["tied_embeddings"]
    assert tied.output["params/lm_head/kernel"].shape == (width, vocabulary)
    assert tied.output["params/lm_head/bias"].shape == (vocabulary,)
    assert not [path for path in tied.output if "embedder" in path]
    for found in (tied, separate):
        assert found.same("lm_head/kernel", "softmax/logits_ffn/linear/w")
    assert separate.same("embedder/embedding", "embedding_lookup/emb_var")  # [V, D]


def test_fact_8_what_no_array_tells_comes_from_the_dump(converted: Make):
    palm, gpt = converted("PalmLike_gda"), converted("GptSinusoid_ocdbt")
    assert palm.model["embedding_scale"] == gpt.model["embedding_scale"] == "sqrt_dim"
    assert palm.model["final_logit_cap"] == gpt.model["final_logit_cap"] == 30.0
    assert (palm.model["attention_logit_cap"], gpt.model["attention_logit_cap"]) == (None, 50.0)
    assert palm.model["rotary"]["pairing"] == "half_split"
    assert (palm.model["activation"], gpt.model["activation"]) == ("silu", "gelu_tanh")
    for name in ("embedding_scale", "final_logit_cap", "activation", "norm_epsilon"):
        assert palm.cause(name) == "dump", name
    bare = converted("Llama_v11orbaxnames", optimizer="none")
    assert bare.cause("activation") == "assumed"
    assert bare.cause("num_heads") == "tree"
    assert bare.report.plan.assumed["forward"]["activation"] == "silu"


@pytest.mark.parametrize("name", ["LlamaAdafactor_gda", "b_everywhere"])
def test_fact_9_adafactor_keeps_its_int8_momentum_and_unused_slots(name: str, converted: Make):
    found = converted(name)
    place = "state/optimizer/sharded_adafactor/"
    for field in ("m", "m_scale", "vr", "vc", "v"):
        own = {p: v for p, v in found.output.items() if p.startswith(f"{place}{field}/")}
        source = [v for p, v in found.source.items() if f"/{field}/params/" in p]
        assert sorted(map(stored.leaf_digest, own.values())) == sorted(
            map(stored.leaf_digest, source)
        )
    momentum = {p: v for p, v in found.output.items() if p.startswith(f"{place}m/")}
    assert {v.dtype.name for v in momentum.values()} == {"int8"}
    for path, values in momentum.items():
        layers = 1 if "/layers/" in path else 0  # each stacked layer is a variable of its own
        scale = found.output[path.replace(f"{place}m/", f"{place}m_scale/")]
        assert scale.shape == values.shape[:layers] + values.shape[layers + 1 :]
    unused = [
        v for p, v in found.output.items() if p.startswith(f"{place}v/") and v.shape[-1:] == (1,)
    ]
    assert unused, "factored variables have no use for v"
    if name == "b_everywhere":
        assert {v.shape for v in unused} >= {(1,), (2, 1)}


def test_fact_10_padding_is_cut_off_parameters_and_moments(converted: Make):
    found = converted("LlamaPadded_gda")
    step = found.manifest["source"]["url"]
    table = "lm.softmax.logits_ffn.linear.w"
    for prefix, target in (
        ("mdl_vars.params", "params"),
        ("opt_states_0_2.m.params", "state/optimizer/adam/mu"),
        ("opt_states_0_2.v.params", "state/optimizer/adam/nu"),
    ):
        array = Path(step) / "state" / f"{prefix}.{table}" / ".zarray"
        assert json.loads(array.read_text())["shape"] == [32, 92]
        assert found.output[f"{target}/lm_head/kernel"].shape == (32, 90)
    assert found.model["vocab_size"] == 90


class TestFact11:
    """A bfloat16 model whose training job stored float32."""

    def test_what_is_on_disk_is_kept_and_said(self, converted: Make):
        found = converted("LlamaBf16_gda")
        assert {v.dtype.name for p, v in found.output.items() if p.startswith("params/")} == {
            "float32"
        }
        assert any("stored as float32" in note for note in found.manifest["notes"])
        assert found.same("final_norm/scale", "final_ln/scale")
        assert found.model["dtype"] == "bfloat16"

    def test_dtype_casts_parameters_as_paxml_does_on_restore(self, converted: Make):
        found = converted("LlamaBf16_gda", dtype="bfloat16")
        for leaf in found.manifest["leaves"]:
            if leaf["target"].startswith("params/"):
                (source,) = leaf["sources"]
                assert leaf["operation"] == "cast bfloat16"
                assert leaf["sha256"] == found.described[source]["sha256"]  # rounded to even
        assert found.manifest["options"]["dtype"] == "bfloat16"
        assert found.model["param_dtype"] == "bfloat16"
        moments = [v for p, v in found.output.items() if p.startswith("state/optimizer/adam/mu/")]
        assert {v.dtype.name for v in moments} == {"float32"}

    def test_true_bfloat16_stays(self, converted: Make):
        found = converted("LlamaBf16_ocdbt")
        assert found.output["params/final_norm/scale"].dtype == ml_dtypes.bfloat16
        assert found.output["state/optimizer/adam/mu/final_norm/scale"].dtype == ml_dtypes.bfloat16
        assert found.output["state/optimizer/adam/count"].dtype == np.int32
        assert not any("stored as float32" in note for note in found.manifest["notes"])


def test_fact_12_groups_become_one_tree_and_frozen_variables_have_none(converted: Make):
    grouped = converted("LlamaRepeat_gda")
    groups = {p.split("/")[2] for p in grouped.source if p.startswith("opt_states")}
    assert groups == {"no_prefix", "p#3#i-1"}
    params = {p.removeprefix("params/") for p in grouped.output if p.startswith("params/")}
    for field in ("mu", "nu"):
        place = f"state/optimizer/adam/{field}/"
        assert {p.removeprefix(place) for p in grouped.output if p.startswith(place)} == params
    assert grouped.output["state/optimizer/adam/count"].shape == ()

    frozen = converted("d_correction_frozen_lm")
    place = "state/optimizer/sharded_adafactor/m/"
    moved = {p.removeprefix(place) for p in frozen.output if p.startswith(place)}
    assert moved == {
        p.removeprefix("params/")
        for p in frozen.output
        if p.startswith("params/") and not p.startswith("params/pretrained_lm/")
    }
    assert any("have no optimizer state (frozen)" in note for note in frozen.manifest["notes"])


def test_fact_12_counters_that_differ_are_an_error(tmp_path: Path):
    leaves = synthetic.adam_leaves({"w": np.ones((2, 2), np.float32)})
    leaves["opt_states/0/2/count"] = np.array(5, np.int32)
    step = synthetic.write_step(tmp_path / "checkpoint_00000007", leaves)
    convert(step, tmp_path / "one", overrides={"beta1": 0.9, "beta2": 0.99})  # of two transforms
    for group, count in (("no_prefix", 5), ("p#2#i-1", [5, 6])):
        leaves |= {
            f"opt_states/0/{group}/2/count": np.array(count, np.int32),
            f"opt_states/0/{group}/2/m/params/{group[0]}": np.ones((2, 2), np.float32),
            f"opt_states/0/{group}/2/v/params/{group[0]}": np.ones((2, 2), np.float32),
            f"mdl_vars/params/{group[0]}": np.ones((2, 2), np.float32),
        }
    leaves = {p: v for p, v in leaves.items() if "opt_states/0/0" not in p and "/0/2/" not in p}
    leaves = {p: v for p, v in leaves.items() if not p.endswith("params/w")}
    step = synthetic.write_step(tmp_path / "grouped" / "checkpoint_00000007", leaves)
    with pytest.raises(Exception, match=r"counters differ: .*no_prefix/2/count = 5"):
        convert(step, tmp_path / "two", overrides={"beta1": 0.9, "beta2": 0.99})
    assert not (tmp_path / "two").exists()
