"""Tensors to parameters: names, heads, parts; nothing is left over, missing or guessed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from converters.errors import CheckpointError, ConversionError, MappingError
from converters.huggingface import open_pretrained, plan_pretrained
from converters.huggingface.planner import PretrainedOptions
from converters.write.jobs import ReaderCache
from tests.converters.huggingface.recorded_models import FOLDERS

Tensors = dict[str, np.ndarray]
Model = Callable[..., Path]


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """`model(name, change, **config)`: a copy of a recorded model with other tensors."""

    def make(name: str, change: Callable[[Tensors], Any] = lambda _: None, **config: Any) -> Path:
        tensors = load_file(FOLDERS / name / "model.safetensors")
        changed = change(tensors)
        save_file(tensors if changed is None else changed, tmp_path / "model.safetensors")
        values = json.loads((FOLDERS / name / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**values, **config}))
        return tmp_path

    return make


def planned(folder: Path) -> tuple[Any, Any]:
    return plan_pretrained(open_pretrained(folder))


def values(plan: Any) -> dict[str, np.ndarray]:
    readers = ReaderCache(1 << 20)
    return {
        leaf.target: leaf.array.read(tuple(slice(0, size) for size in leaf.shape), readers)
        for leaf in plan.leaves
    }


@pytest.mark.parametrize("prefix", ["", "language_model.model.", "model.language_model."])
def test_names_may_have_another_prefix(model: Model, prefix: str) -> None:
    wanted = values(planned(model("qwen2"))[1])

    def rename(tensors: Tensors) -> Tensors:
        head = "language_model.lm_head.weight" if prefix.startswith("lang") else "lm_head.weight"
        return {
            head if name == "lm_head.weight" else prefix + name.removeprefix("model."): value
            for name, value in tensors.items()
        }

    found = values(planned(model("qwen2", rename))[1])
    assert found.keys() == wanted.keys()
    for path, value in wanted.items():
        np.testing.assert_array_equal(found[path], value)


def test_what_is_left_out_has_a_reason(model: Model) -> None:
    def add(tensors: Tensors) -> None:
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(4, np.float32)
        tensors["vision_tower.x.weight"] = np.ones(3, np.int8)

    _, plan = planned(model("gemma", add))
    assert dict(plan.ignored) == {
        "model.layers.0.self_attn.rotary_emb.inv_freq": "frequencies that the configuration gives",
        "vision_tower.x.weight": "for images; the language model is loaded",
    }


def test_every_tensor_is_used_or_named(model: Model) -> None:
    def add(tensors: Tensors) -> None:
        tensors["model.layers.0.self_attn.q_norm.weight"] = np.ones(2, np.float32)
        tensors["more.weight"] = np.ones((2, 2), np.float32)

    with pytest.raises(
        MappingError, match=r"(?s)2 problems.*q_norm\.weight: no rule.*more\.weight: no rule"
    ):
        planned(model("llama", add))


def test_every_parameter_is_filled(model: Model) -> None:
    def drop(tensors: Tensors) -> None:
        del tensors["model.norm.weight"], tensors["model.layers.1.mlp.up_proj.weight"]

    with pytest.raises(
        MappingError,
        match=r"(?s)2 problem.*final_norm/scale: missing.*layers_1/mlp/up/kernel: miss",
    ):
        planned(model("mistral", drop))


def test_biases_must_be_as_the_configuration_says(model: Model) -> None:
    with pytest.raises(MappingError, match="attention/query/bias: the configuration has no such"):
        planned(model("llama", attention_bias=False))
    with pytest.raises(MappingError, match="attention/query/bias: missing"):
        planned(model("olmo2", attention_bias=True))


def test_shapes_must_fit(model: Model) -> None:
    with pytest.raises(MappingError, match=r"q_proj\.weight by split"):
        planned(model("mistral", head_dim=6))
    with pytest.raises(MappingError, match=r"qkv_proj\.weight: found \[32, 16\]; its parts have"):
        planned(model("phi3", num_key_value_heads=1))
    with pytest.raises(
        MappingError, match=r"lm_head/kernel: found \[41, 16\], \[40, 16\] expected"
    ):
        planned(model("granite", vocab_size=40))


def test_word_embeddings_have_to_be_there_once(model: Model) -> None:
    with pytest.raises(MappingError, match=r"no tensor is named \[\.\.\.\]wte\.weight"):
        planned(
            model(
                "gpt2", lambda tensors: {"transformer.ln_f.bias": tensors["transformer.ln_f.bias"]}
            )
        )

    def twice(tensors: Tensors) -> None:
        tensors["draft.model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"].copy()

    with pytest.raises(
        MappingError, match=r"several tensors are named.*draft\.model\.embed_tokens"
    ):
        planned(model("llama", twice))


HEAD, WORDS = "lm_head.weight", "model.embed_tokens.weight"


def test_a_tied_head_with_the_same_values_is_the_embedding(model: Model) -> None:
    def same(tensors: Tensors) -> None:
        tensors[HEAD] = tensors[WORDS].copy()

    config, plan = planned(model("granite", same))
    assert config.tied_embeddings
    assert dict(plan.ignored) == {HEAD: f"equal to {WORDS}, to which it is tied"}


def test_a_tied_head_with_other_values_is_not_tied(model: Model) -> None:
    def other(tensors: Tensors) -> None:
        tensors[HEAD] = tensors[WORDS].copy()
        tensors[HEAD][-1, -1] += 1

    folder = model("granite", other)
    config, plan = planned(folder)
    assert not config.tied_embeddings
    found, stored = values(plan), load_file(folder / "model.safetensors")
    np.testing.assert_array_equal(found["params/lm_head/kernel"], stored[HEAD])
    np.testing.assert_array_equal(found["params/embedder/embedding"], stored[WORDS])


def test_an_untied_head_must_be_there(model: Model) -> None:
    with pytest.raises(MappingError, match=r"the head is missing.*no lm_head\.weight or embed_out"):
        planned(model("llama", lambda tensors: {n: v for n, v in tensors.items() if n != HEAD}))


def test_untied_heads_may_hold_the_same_values(model: Model) -> None:
    def same(tensors: Tensors) -> None:
        tensors[HEAD] = tensors[WORDS].copy()

    assert not planned(model("llama", same))[0].tied_embeddings


def test_the_older_name_of_the_head(model: Model) -> None:
    def rename(tensors: Tensors) -> None:
        name = next(name for name in ("lm_head.weight", "embed_out.weight") if name in tensors)
        other = "embed_out.weight" if name == "lm_head.weight" else "lm_head.weight"
        tensors[other] = tensors.pop(name)

    assert "params/lm_head/kernel" in values(planned(model("gpt_neox", rename))[1])


def test_integers_are_no_weights(model: Model) -> None:
    def quantise(tensors: Tensors) -> None:
        name = "model.layers.0.mlp.up_proj.weight"
        tensors[name] = tensors[name].astype(np.int8)

    with pytest.raises(MappingError, match="up/kernel: holds int8; quantised weights are not"):
        planned(model("mistral", quantise))


def test_half_precision_is_kept_or_cast(model: Model) -> None:
    def halve(tensors: Tensors) -> Tensors:
        return {name: value.astype(np.float16) for name, value in tensors.items()}

    folder = model("mistral", halve)
    config, plan = planned(folder)
    assert (config.dtype, config.param_dtype) == ("float32", "float16")  # config.json says float32
    config, cast = plan_pretrained(open_pretrained(folder), PretrainedOptions(dtype="float32"))
    assert (config.dtype, config.param_dtype) == ("float32", "float32")
    kept = values(plan)
    for path, value in values(cast).items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, kept[path].astype(np.float32))
    with pytest.raises(MappingError, match="dtype int8: parameters can be cast to float32, bfl"):
        plan_pretrained(open_pretrained(folder), PretrainedOptions(dtype="int8"))


def test_parts_of_fused_tensors_lie_where_they_belong(model: Model) -> None:
    """Each number of the fused tensors of Phi-3, GPT-2 and GPT-NeoX, by its place in their code."""
    folder = model("phi3")
    fused = load_file(folder / "model.safetensors")
    found = values(planned(folder)[1])
    qkv = fused["model.layers.1.self_attn.qkv_proj.weight"]  # [(4 + 2 + 2) 4, 16]
    np.testing.assert_array_equal(found["params/layers_1/attention/query/kernel"][3, 2], qkv[14])
    np.testing.assert_array_equal(found["params/layers_1/attention/key/kernel"][1, 3], qkv[23])
    np.testing.assert_array_equal(found["params/layers_1/attention/value/kernel"][0, 1], qkv[25])
    gate_up = fused["model.layers.0.mlp.gate_up_proj.weight"]  # [2 24, 16]
    np.testing.assert_array_equal(found["params/layers_0/mlp/gate/kernel"], gate_up[:24])
    np.testing.assert_array_equal(found["params/layers_0/mlp/up/kernel"], gate_up[24:])

    folder = model("gpt_neox")
    stored = load_file(folder / "model.safetensors")
    found = values(planned(folder)[1])
    qkv = stored["gpt_neox.layers.0.attention.query_key_value.weight"]  # [2 3 8, 16]
    np.testing.assert_array_equal(
        found["params/layers_0/attention/qkv/kernel"][2, 1, 5], qkv[1 * 24 + 2 * 8 + 5]
    )
    folder = model("gpt2")
    stored = load_file(folder / "model.safetensors")
    found = values(planned(folder)[1])
    qkv = stored["transformer.h.1.attn.c_attn.weight"]  # [16, 3 4 4]
    np.testing.assert_array_equal(
        found["params/layers_1/attention/qkv/kernel"][1, :, 2, 3], qkv[:, 1 * 16 + 2 * 4 + 3]
    )


def test_scanned_layers_are_the_layers_stacked() -> None:
    for name, block in (("llama", 1), ("gemma2", 2)):
        pretrained = open_pretrained(FOLDERS / name)
        config, plan = plan_pretrained(pretrained, PretrainedOptions(scan_layers=True))
        assert (config.scan_layers, config.layers_per_block) == (True, block)
        stacked, single = values(plan), values(plan_pretrained(pretrained)[1])
        for path, value in single.items():
            layer, _, rest = path.removeprefix("params/layers_").partition("/")
            if not layer.isdigit():
                np.testing.assert_array_equal(stacked[path], value)
                continue
            number, place = divmod(int(layer), block)
            scanned = f"params/layers/{f'block_{place}/' if block > 1 else ''}{rest}"
            np.testing.assert_array_equal(stacked[scanned][number], value)


def test_unsupported_configurations_are_conversion_errors(model: Model) -> None:
    with pytest.raises(ConversionError, match="quantised checkpoints"):
        planned(model("llama", quantization_config={"quant_method": "awq"}))
    with pytest.raises(ConversionError, match="model_type: 'xlnet' is not supported"):
        planned(model("llama", model_type="xlnet"))


def test_files_that_are_not_there(tmp_path: Path, model: Model) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        open_pretrained(tmp_path / "nothing")
    folder = model("llama")
    (folder / "model.safetensors").rename(folder / "model.gguf")
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors.*model\.gguf, which"):
        open_pretrained(folder)
    (folder / "model.gguf").unlink()
    with pytest.raises(CheckpointError, match="the weights are missing"):
        open_pretrained(folder)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A copy of the model in several files."""
    for file in (FOLDERS / "qwen3").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def edit_index(folder: Path, edit: Callable[[dict[str, str]], object]) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    edit(index["weight_map"])
    path.write_text(json.dumps(index))


def test_several_files(shards: Path) -> None:
    assert open_pretrained(shards).layout == "safetensors in 3 files"
    (shards / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match="1 of 3 files are missing: model-00002"):
        open_pretrained(shards)


def test_the_index_must_fit_its_files(shards: Path) -> None:
    norm = "model.norm.weight"
    edit_index(shards, lambda places: places.pop(norm))
    with pytest.raises(CheckpointError, match=rf"{norm}: is in .*the index says None"):
        open_pretrained(shards)
    edit_index(shards, lambda places: places.update({norm: "model-00003-of-00003.safetensors"}))
    edit_index(shards, lambda places: places.update({"x": "model-00003-of-00003.safetensors"}))
    with pytest.raises(CheckpointError, match=r"x: model-00003-of-00003.* does not hold it"):
        open_pretrained(shards)
    edit_index(shards, lambda places: places.update({"x": "../model.safetensors"}))
    with pytest.raises(CheckpointError, match="is no file beside the index"):
        open_pretrained(shards)
    (shards / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(CheckpointError, match="no index of files with tensors"):
        open_pretrained(shards)
