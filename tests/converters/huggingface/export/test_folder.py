"""`convert-hf --reverse`: the tensors come back, and `transformers` computes the same with them."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

from converters import ConvertOptions, PlanOptions, convert
from converters.commands.convert_hf import convert_hf
from converters.errors import CheckpointError, MappingError
from converters.huggingface import convert_pretrained, load_pretrained_lm
from converters.huggingface.convert import ConvertPretrainedOptions
from converters.huggingface.export.folder import ExportOptions, export_pretrained
from converters.huggingface.planner import PretrainedOptions
from efficientids_flax.backbone import Decoder
from efficientids_flax.config import BackboneConfig, RotaryConfig
from efficientids_flax.parameters import parameter_shapes
from efficientids_flax.stored.load import load_converted
from efficientids_flax.stored.save import save_model
from parity_tests.cases import OUTPUTS, checkpoint_of, recordings
from tests.converters.huggingface.recorded_models import (
    FOLDERS,
    NAMES,
    distance,
    forward,
    reference,
)

SCANNED = ("gemma2", "gpt2", "llama", "phi3", "smollm3")  # one for each pattern of layers
TOLERANCE = 1e-5  # of the largest logit: float32, summed in another order


def tensors(folder: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for file in folder.glob("*.safetensors"):
        found |= load_file(file)
    return found


def torch_logits(folder: Path, ids: np.ndarray) -> np.ndarray:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype="float32", attn_implementation="eager", experts_implementation="eager"
    )
    with torch.no_grad():
        return model(torch.tensor(ids.astype(np.int64))).logits.numpy()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`exported(name)`: a recorded model after HuggingFace -> Flax -> HuggingFace."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            place = tmp_path_factory.mktemp(name)
            plan = PretrainedOptions(scan_layers=name in SCANNED)
            to = "safetensors" if len(name) % 2 else "orbax"
            options = ConvertPretrainedOptions(plan, to=to)
            convert_pretrained(FOLDERS / name, place / "flax", options)
            export_pretrained(place / "flax", place / "out")
            made[name] = place / "out"
        return made[name]

    return make


@pytest.mark.parametrize("name", NAMES)
def test_tensors_come_back_bit_for_bit(exported: Callable[[str], Path], name: str) -> None:
    found, wanted = tensors(exported(name)), tensors(FOLDERS / name)
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert (found[key].dtype, found[key].shape) == (value.dtype, value.shape)
        assert found[key].tobytes() == value.tobytes(), key


@pytest.mark.parametrize("name", NAMES)
def test_transformers_computes_the_same_with_it(exported: Callable[[str], Path], name: str) -> None:
    recorded = reference(name)
    logits = torch_logits(exported(name), recorded["input_ids"])
    assert distance(logits, recorded["full/logits"]) < TOLERANCE


def test_a_body_is_written_for_the_class_of_bodies(tmp_path: Path) -> None:
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    body = tmp_path / "body"
    shutil.copytree(FOLDERS / "mistral", body)
    values = json.loads((body / "config.json").read_text()) | {"architectures": ["MistralModel"]}
    (body / "config.json").write_text(json.dumps(values))
    wanted = {k: v for k, v in tensors(body).items() if k != "lm_head.weight"}
    save_file(wanted, body / "model.safetensors")
    convert_pretrained(body, tmp_path / "flax")
    export_pretrained(tmp_path / "flax", tmp_path / "out")
    assert json.loads((tmp_path / "out/config.json").read_text())["architectures"] == [
        "MistralModel"
    ]
    assert tensors(tmp_path / "out").keys() == wanted.keys()
    model = transformers.AutoModel.from_pretrained(
        tmp_path / "out", dtype="float32", attn_implementation="eager"
    )
    recorded = reference("mistral")
    with torch.no_grad():
        found = model(torch.tensor(recorded["input_ids"].astype(np.int64))).last_hidden_state
    assert distance(found.numpy(), recorded["full/hidden_states"][-1]) < TOLERANCE


# Plain, with grouped heads, with stacked layers.
@pytest.mark.parametrize("name", ["Llama_v11orbaxnames", "LlamaGqa_ocdbt", "LlamaRepeat_gda"])
def test_a_paxml_llama_in_transformers(name: str, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(OUTPUTS / name, tmp_path / "paxml")
    convert(checkpoint, tmp_path / "flax", ConvertOptions(PlanOptions(optimizer="none")))
    report = export_pretrained(tmp_path / "flax", tmp_path / "out")
    doubts = ("assumed, ", "Say what you know")  # for models without their job's files
    assert report.plan.family == "llama"
    assert [note for note in report.plan.notes if not note.startswith(doubts)] == []
    with np.load(OUTPUTS / name / "arrays.npz") as recorded:
        logits = torch_logits(tmp_path / "out", recorded["inputs/ids"])
        labels, wanted = recorded["inputs/labels"], recorded["outputs/per_example_xent"]
    shifted = logits - logits.max(-1, keepdims=True)
    log_probs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    found = -np.take_along_axis(log_probs, labels[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_what_a_conversion_assumed_goes_along(recording: Callable[[str], Path], tmp_path: Path):
    case = recording("Llama_v11orbaxnames") / "checkpoint"
    convert(case, tmp_path / "flax", ConvertOptions(PlanOptions(optimizer="none")))
    notes = export_pretrained(tmp_path / "flax", tmp_path / "out").plan.notes
    assert "activations and logits: activation=silu, norm=rms_norm" in notes[0]
    assert f"find-settings {tmp_path / 'flax'} --tokens" in notes[1]


def test_a_paxml_gemma_in_transformers(tmp_path: Path) -> None:
    recorded = recordings()["Gemma"]
    checkpoint = checkpoint_of(recorded, tmp_path / "paxml")
    convert(checkpoint, tmp_path / "flax")
    report = export_pretrained(tmp_path / "flax", tmp_path / "out")
    assert (report.plan.family, report.plan.notes) == ("gemma", ())
    with np.load(recorded / "arrays.npz") as values:
        logits = torch_logits(tmp_path / "out", values["inputs/ids"])  # padding is at the end
        seen = values["inputs/paddings"] == 0
        assert distance(logits, values["outputs/logits"], seen) < TOLERANCE


def decoder(tmp_path: Path, **changes: Any) -> Path:
    """A converted Llama whose configuration has other values, and parameters that fit them."""
    out = tmp_path / "flax"
    if not out.exists():
        convert_pretrained(FOLDERS / "llama", out, ConvertPretrainedOptions(to="safetensors"))
    about = json.loads((out / "config.json").read_text())
    about["model"] |= changes
    (out / "config.json").write_text(json.dumps(about))
    return out


def test_what_no_family_computes_is_named(tmp_path: Path) -> None:
    out = decoder(tmp_path, attention_logit_cap=50.0, query_scaling="none")
    with pytest.raises(MappingError, match=r"(?s)no family computes this model; the nearest: "):
        export_pretrained(out, tmp_path / "out")
    with pytest.raises(
        MappingError,
        match=r"(?s)family llama does not compute.*attention_logit_cap: the model has 50.0, the "
        r"family None.*query_scaling: the model has 1.0, the family 0.3535",
    ):
        export_pretrained(out, tmp_path / "out", ExportOptions("llama"))
    with pytest.raises(MappingError, match=r"family 'bert'; known are llama, "):
        export_pretrained(out, tmp_path / "out", ExportOptions("bert"))
    assert not list(tmp_path.glob("out*"))


def test_what_is_of_training_or_rounding_alone_is_noted(tmp_path: Path) -> None:
    out = decoder(tmp_path, residual_dropout=0.1, dtype="bfloat16", norm_scale_in_float32=True)
    notes = export_pretrained(out, tmp_path / "out").plan.notes
    assert notes == (
        "norm_scale_in_float32: the model has True, the family False; bfloat16 is rounded "
        "elsewhere, float32 is the same",
        "residual_dropout: the model has 0.1, the family 0.0; it is of training alone",
    )


def test_a_model_that_was_trained_here(tmp_path: Path) -> None:
    config, params = load_pretrained_lm(FOLDERS / "gemma2", scan_layers=True)
    save_model(tmp_path / "saved", Decoder(config), params)
    report = export_pretrained(tmp_path / "saved", tmp_path / "out")
    assert report.plan.family == "gemma2"
    found, wanted = tensors(tmp_path / "out"), tensors(FOLDERS / "gemma2")
    assert {key: value.tobytes() for key, value in found.items()} == {
        key: value.tobytes() for key, value in wanted.items()
    }


# PAXml's layouts that HuggingFace lacks: interleaved pairs, a single key head, a fused kernel.
ARRANGED = {
    "interleaved": {"rotary": RotaryConfig(pairing="interleaved", max_timescale=500.0)},
    "interleaved, fused": {
        "rotary": RotaryConfig(pairing="interleaved"),
        "fused_qkv": True,
        "num_kv_heads": 4,
        "scan_layers": True,
    },
    "multi-query, biases": {"num_kv_heads": 1, "multi_query": True, "qkv_bias": True},
    "scales minus one": {"norm_scale_plus_one": True, "norm_scale_in_float32": True},
    "output first": {"kernel_axes": "out_in", "tied_embeddings": True},
    "output first, interleaved, fused": {
        "kernel_axes": "out_in",
        "rotary": RotaryConfig(pairing="interleaved"),
        "fused_qkv": True,
        "num_kv_heads": 4,
        "scan_layers": True,
    },
    "output first, multi-query": {
        "kernel_axes": "out_in",
        "num_kv_heads": 1,
        "multi_query": True,
        "qkv_bias": True,
    },
    "halves, for a family of pairs": {"family": "glm", "scan_layers": True},
    "halves, and norms of each head, for a family of pairs": {
        "family": "cohere",
        "norm": "layer_norm",
        "parallel_residual": True,
        "shared_norm": True,
        "qk_norm": "each_head",
        "logits_divisor": 3.0,
    },
    "heads for blocks": {
        "family": "falcon",
        "norm": "layer_norm",
        "norm_bias": True,
        "parallel_residual": True,
        "gated_mlp": False,
        "activation": "gelu",
        "head_dim": 4,
        "num_heads": 3,
        "num_kv_heads": 3,
    },
}


@pytest.mark.parametrize("kind", ARRANGED)
def test_other_arrangements_compute_the_same(kind: str, tmp_path: Path) -> None:
    plain = BackboneConfig(
        vocab_size=23, num_layers=2, model_dims=12, hidden_dims=14, num_heads=4, num_kv_heads=2,
        head_dim=6, rotary=RotaryConfig(), gated_mlp=True, activation="silu", tied_embeddings=False,
    )  # fmt: skip
    changes = dict(ARRANGED[kind])
    family = changes.pop("family", None)
    config = replace(plain, **changes)
    rng = np.random.default_rng(0)
    params = {
        path: rng.normal(0, 0.3, shape).astype(np.float32)
        for path, shape in parameter_shapes(config).items()
    }
    (tmp_path / "flax").mkdir()
    save_file(params, tmp_path / "flax" / "params.safetensors")
    about = {"family": "transformer_lm", "model": config.to_dict(), "schema_version": 1}
    (tmp_path / "flax" / "config.json").write_text(json.dumps(about | {"optimizer": None}))
    report = export_pretrained(tmp_path / "flax", tmp_path / "out", ExportOptions(family=family))
    assert report.plan.family == (family or ("qwen2" if config.qkv_bias else "llama"))
    ids = rng.integers(0, 23, (2, 40))
    tree = load_converted(tmp_path / "flax").params
    _, logits = jax.jit(lambda: forward(config, tree, ids=ids))()
    assert distance(torch_logits(tmp_path / "out", ids), np.asarray(logits)) < TOLERANCE
    if config.norm_scale_plus_one:
        scale = tensors(tmp_path / "out")["model.norm.weight"]
        np.testing.assert_array_equal(scale, 1 + params["final_norm/scale"])
        with pytest.raises(MappingError, match="norm_scale_plus_one: the model has True"):
            export_pretrained(tmp_path / "flax", tmp_path / "b", ExportOptions(dtype="bfloat16"))


def test_several_files_the_tokenizer_and_keys_of_the_user(tmp_path: Path) -> None:
    source = shutil.copytree(FOLDERS / "qwen2", tmp_path / "source")
    for name in ("tokenizer.json", "merges.txt", "generation_config.json", "README.md"):
        (source / name).write_text(f"content of {name}")
    convert_pretrained(source, tmp_path / "flax", dtype="float32")
    runner, out = CliRunner(), tmp_path / "out"
    command = ["--reverse", str(tmp_path / "flax"), str(out), "--shard", "1MiB", "--quiet"]
    found = runner.invoke(convert_hf, [*command, "--set", "eos_token_id=7", "--dtype", "bfloat16"])
    assert (found.exit_code, found.output) == (0, "")
    config = json.loads((out / "config.json").read_text())
    assert (config["eos_token_id"], config["bos_token_id"]) == (7, known(source)["bos_token_id"])
    assert (config["dtype"], config["torch_dtype"]) == ("bfloat16", "bfloat16")
    assert all(value.dtype.name == "bfloat16" for value in tensors(out).values())
    assert (out / "merges.txt").read_text() == "content of merges.txt"
    assert {file.name for file in out.iterdir()} == {
        "config.json", "manifest.json", "model.safetensors", "tokenizer.json", "merges.txt",
        "generation_config.json",
    }  # fmt: skip
    export_pretrained(tmp_path / "flax", tmp_path / "many", ExportOptions(shard=8000))
    shutil.rmtree(source)
    report = export_pretrained(tmp_path / "flax", tmp_path / "alone")
    assert "the model came from, is not there: files of its tokenizer" in report.plan.notes[-1]
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    files = {file.name for file in (tmp_path / "many").glob("model-*-of-*.safetensors")}
    assert set(index["weight_map"].values()) == files
    assert len(files) > 1
    assert tensors(tmp_path / "many").keys() == tensors(FOLDERS / "qwen2").keys()


def known(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def test_bad_usage_and_bad_input(tmp_path: Path) -> None:
    runner, out = CliRunner(), str(tmp_path / "out")
    for options in (["--reverse", "--scan-layers"], ["--reverse", "--to", "orbax"],
                    ["--family", "llama"], ["--shard", "1GB"]):  # fmt: skip
        found = runner.invoke(convert_hf, ["a", out, *options])
        assert found.exit_code == 2, options
        assert "--reverse" in found.output
    found = runner.invoke(convert_hf, ["--reverse", str(tmp_path), out])
    assert found.exit_code == 1
    assert "no config.json; give the OUT of convert-hf or convert-paxml" in found.output
    found = runner.invoke(convert_hf, ["--reverse", str(FOLDERS / "gemma"), out])
    assert "family None has no configuration of a language model" in found.output
    flax = decoder(tmp_path)
    with pytest.raises(CheckpointError, match="holds no files of a tokenizer"):
        export_pretrained(flax, out, ExportOptions(tokenizer=str(tmp_path)))
    decoder(tmp_path, num_layers=3)
    with pytest.raises(CheckpointError, match=r"not those of config.json:\n.*layers_"):
        export_pretrained(flax, out)
    assert not Path(out).exists()


def test_the_recommenders_language_model(recording: Callable[[str], Path], tmp_path: Path) -> None:
    """Its PAXml decoder has something that no family has; the error is about the decoder only."""
    convert(recording("b_everywhere") / "checkpoint", tmp_path / "flax")
    with pytest.raises(MappingError, match="no family computes this model; the nearest: family"):
        export_pretrained(tmp_path / "flax", tmp_path / "out")
