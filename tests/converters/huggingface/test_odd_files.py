"""Files as they occur: tensors left out, stored once, misplaced, or in another form."""

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from converters.commands.convert_hf import convert_hf
from converters.errors import CheckpointError, ConversionError, MappingError
from converters.huggingface import load_pretrained_lm, open_pretrained, plan_pretrained
from converters.huggingface.tables import TABLES
from efficientids_flax.backbone import Decoder
from efficientids_flax.backbone.presets import FAMILIES, backbone_config
from efficientids_flax.backbone.presets.families import WRAPPERS
from efficientids_flax.config import BackboneConfig
from tests.converters.huggingface.recorded_models import FOLDERS
from tests.converters.invoking import invoke

Tensors = dict[str, np.ndarray]
ONE_FILE = ("llama", "llama_tied", "mistral", "qwen2", "gemma3_text", "gpt2", "gpt_neox", "phi3")
INV_FREQ = "model.layers.0.self_attn.rotary_emb.inv_freq"


def tensors_of(name: str) -> Tensors:
    return load_file(FOLDERS / name / "model.safetensors")


def values_of(name: str) -> dict[str, Any]:
    return json.loads((FOLDERS / name / "config.json").read_text())


def written(folder: Path, tensors: Tensors, config: Mapping[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(dict(config)))
    return folder


def sharded(folder: Path, files: list[Tensors], places: dict[str, int], config: Any) -> Path:
    """Several files, and an index that says which file has each tensor."""
    folder.mkdir(exist_ok=True)
    names = [f"model-{i + 1:05}-of-{len(files):05}.safetensors" for i in range(len(files))]
    for name, tensors in zip(names, files, strict=True):
        save_file(tensors, folder / name)
    index = {"weight_map": {name: names[number] for name, number in places.items()}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def hidden_states(config: BackboneConfig, params: Any) -> Any:
    return program(config)(params, np.arange(8).reshape(2, 4))


@cache
def program(config: BackboneConfig) -> Any:
    """A decoder, compiled once for all tests of such a model."""
    return jax.jit(lambda params, ids: Decoder(config).apply({"params": params}, ids))


def same(found: Any, wanted: Any) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


@pytest.mark.parametrize("name", ["llama_tied", "gemma3_text", "gpt2"])
def test_the_one_table_of_a_tied_model_may_have_the_heads_name(name: str, tmp_path: Path) -> None:
    tensors = tensors_of(name)
    word = next(key for key in tensors if key.endswith(("embed_tokens.weight", "wte.weight")))
    tensors["lm_head.weight"] = tensors.pop(word)
    folder = written(tmp_path, tensors, values_of(name))
    same(load_pretrained_lm(folder), load_pretrained_lm(FOLDERS / name))
    if name == "llama_tied":
        written(tmp_path, tensors, {**values_of(name), "tie_word_embeddings": False})
        with pytest.raises(MappingError, match=r"word embeddings are missing.* lm_head\.weight"):
            load_pretrained_lm(tmp_path)


@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("made", ["Model", "ForSequenceClassification", "ForTokenClassification"])
def test_bodies_load_without_a_head(made: str, prefix: bool, tmp_path: Path) -> None:
    tensors, config = tensors_of("mistral"), values_of("mistral")
    del tensors["lm_head.weight"]
    if not prefix:
        tensors = {name.removeprefix("model."): value for name, value in tensors.items()}
    if made != "Model":
        tensors["score.weight"] = np.ones((3, config["hidden_size"]), np.float32)
    folder = written(tmp_path, tensors, {**config, "architectures": [f"Mistral{made}"]})
    found, params = load_pretrained_lm(folder)
    whole, wanted = load_pretrained_lm(FOLDERS / "mistral")
    assert (found.lm_head, found.tied_embeddings, whole.lm_head) == (False, False, True)
    assert not backbone_config(folder).lm_head
    same(params, {name: value for name, value in wanted.items() if name != "lm_head"})
    hidden = hidden_states(found, params)
    np.testing.assert_array_equal(hidden, hidden_states(whole, wanted))
    with pytest.raises(ValueError, match="has no head"):
        Decoder(found).apply({"params": params}, hidden, method="logits")
    _, plan = plan_pretrained(open_pretrained(folder))
    notes = " ".join(plan.notes)
    assert "the model has no head" in notes
    assert ("score.weight" in dict(plan.ignored)) == ("score.weight" in notes) == (made != "Model")


@pytest.mark.parametrize("name", ["phi", "gptj", "opt_narrow"])
def test_bodies_of_families_whose_head_has_more_parts(name: str, tmp_path: Path) -> None:
    """The head has a bias, or a projection before it, so a tied table alone is not a head."""
    tensors, config = tensors_of(name), values_of(name)
    tensors = {key: value for key, value in tensors.items() if not key.startswith("lm_head.")}
    tied = name != "opt_narrow"
    values = {**config, "architectures": ["SomeModel"], "tie_word_embeddings": tied}
    found, params = load_pretrained_lm(written(tmp_path, tensors, values))
    whole, wanted = load_pretrained_lm(FOLDERS / name)
    assert (found.lm_head, found.lm_head_bias) == (False, False)
    ours, theirs = hidden_states(found, params), hidden_states(whole, wanted)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_a_table_under_the_heads_name_where_no_norm_is_stored(tmp_path: Path) -> None:
    tensors, config = tensors_of("olmo"), values_of("olmo")
    tensors.pop("lm_head.weight", None)
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    found, _ = load_pretrained_lm(
        written(tmp_path, tensors, {**config, "tie_word_embeddings": True})
    )
    assert found.tied_embeddings


def test_a_head_that_should_be_there_is_still_missed(tmp_path: Path) -> None:
    tensors, config = tensors_of("mistral"), values_of("mistral")
    del tensors["lm_head.weight"]
    with pytest.raises(MappingError, match="the head is missing"):
        load_pretrained_lm(written(tmp_path, tensors, config))
    del config["architectures"]
    with pytest.raises(MappingError, match="the head is missing"):
        load_pretrained_lm(written(tmp_path, tensors, config))


def test_classifiers_of_tied_models_keep_the_tied_head(tmp_path: Path) -> None:
    tensors, config = tensors_of("llama_tied"), values_of("llama_tied")
    tensors |= {"score.weight": np.ones((2, config["hidden_size"]), np.float32)}
    folder = written(
        tmp_path, tensors, {**config, "architectures": ["LlamaForTokenClassification"]}
    )
    same(load_pretrained_lm(folder), load_pretrained_lm(FOLDERS / "llama_tied"))


@pytest.mark.parametrize("name", ONE_FILE)
def test_the_first_layers_of_a_longer_file_are_taken(name: str, tmp_path: Path) -> None:
    config = values_of(name)
    key = "n_layer" if name == "gpt2" else "num_hidden_layers"
    shorter = {**config, key: 1}
    if "layer_types" in config:
        shorter["layer_types"] = config["layer_types"][:1]
    found, params = load_pretrained_lm(written(tmp_path, tensors_of(name), shorter))
    _, wanted = load_pretrained_lm(FOLDERS / name)
    assert found.num_layers == 1
    rest = [layer for layer in wanted if layer.startswith("layers_") and layer != "layers_0"]
    same(params, {path: value for path, value in wanted.items() if path not in rest})
    _, plan = plan_pretrained(open_pretrained(tmp_path))
    assert f"the files have {1 + len(rest)} layers, config.json says 1" in " ".join(plan.notes)
    longer = {**config, key: 7} | ({"layer_types": None} if "layer_types" in config else {})
    with pytest.raises(
        MappingError, match=r"config\.json says 7 layers, the files have"
    ) as refused:
        load_pretrained_lm(written(tmp_path, tensors_of(name), longer))
    assert "\n" not in str(refused.value)


def halves(name: str) -> tuple[list[Tensors], dict[str, int], dict[str, Any]]:
    """A model in two files: [tensors], the file of each, `config.json`."""
    tensors = tensors_of(name)
    files: list[Tensors] = [{}, {}]
    places = {key: number % 2 for number, key in enumerate(sorted(tensors))}
    for key, number in places.items():
        files[number][key] = tensors[key]
    return files, places, values_of(name)


def test_an_index_may_slip_where_nothing_depends_on_it(tmp_path: Path) -> None:
    wanted = load_pretrained_lm(FOLDERS / "llama")
    files, places, config = halves("llama")
    norm = "model.norm.weight"
    files[0] |= {norm: files[places[norm]][norm]}  # equal values in two files
    files[1] |= {norm: files[0][norm]}
    files[1] |= {INV_FREQ: np.ones(4, np.float32)}  # left out, and not in the index
    places |= {"model.layers.1.self_attn.rotary_emb.inv_freq": 0}  # in the index alone
    same(load_pretrained_lm(sharded(tmp_path, files, places, config)), wanted)


def other_values(files: list[Tensors], places: dict[str, int]) -> None:
    files[1 - places["model.norm.weight"]]["model.norm.weight"] = np.zeros(16, np.float32)


SLIPS: dict[str, tuple[Callable[[list[Tensors], dict[str, int]], object], str]] = {
    "other values": (other_values, r"norm\.weight: .* hold other values of it"),
    "not listed": (lambda _, places: places.pop("model.norm.weight"), "the index says None"),
    "head not listed": (lambda _, places: places.pop("lm_head.weight"), "the index says None"),
    "not there": (lambda _, places: places.update({"model.x": 0}), "model.x: .* does not hold it"),
    "head not there": (lambda files, places: files[places["lm_head.weight"]].pop("lm_head.weight"),
                       "the head is missing.*\n.*lm_head.weight: .* does not hold it"),
}  # fmt: skip


@pytest.mark.parametrize("kind", SLIPS)
def test_an_index_must_be_right_about_what_is_needed(kind: str, tmp_path: Path) -> None:
    files, places, config = halves("llama")
    change, message = SLIPS[kind]
    change(files, places)
    with pytest.raises(ConversionError, match=message):
        load_pretrained_lm(sharded(tmp_path, files, places, config))


LINEAR = "model.layers.0.mlp.up_proj"
FORMS = {
    "lora": (["base_layer.weight", "lora_A.default.weight", "lora_B.default.weight"], "a LoRA"),
    "dora": (["weight", "lora_magnitude_vector.default.weight"], "a LoRA"),
    "gptq": (["qweight", "qzeros", "scales", "g_idx"], "names of GPTQ and AWQ"),
    "awq": (["qweight", "qzeros", "scales"], "names of GPTQ and AWQ"),
    "fp8": (["weight", "weight_scale_inv"], "FP8"),
    "fp8 with inputs": (["weight", "weight_scale", "input_scale"], "FP8"),
    "compressed": (["weight_packed", "weight_scale", "weight_shape"], "FP8 or compressed"),
    "bitsandbytes": (["weight", "weight.absmax", "weight.quant_map",
                      "weight.quant_state.bitsandbytes__nf4"], "names of bitsandbytes"),
    "bitsandbytes of 8 bits": (["weight", "SCB"], "names of bitsandbytes"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FORMS)
def test_weights_in_another_form_are_named_in_one_line(kind: str, tmp_path: Path) -> None:
    names, message = FORMS[kind]
    tensors = tensors_of("llama")
    kernel = tensors.pop(f"{LINEAR}.weight")
    for name in names:
        tensors[f"{LINEAR}.{name}"] = kernel if name == "weight" else np.ones((2, 2), np.float32)
    with pytest.raises(MappingError, match=message) as refused:
        load_pretrained_lm(written(tmp_path, tensors, values_of("llama")))
    assert "\n" not in str(refused.value)
    assert LINEAR in str(refused.value)


@pytest.mark.parametrize("name", ["lm_head", "model.embed_tokens"])
@pytest.mark.parametrize("around", ["modules_to_save.default", "base_layer"])
def test_words_and_heads_in_another_form_are_not_called_missing(
    name: str, around: str, tmp_path: Path
) -> None:
    tensors = tensors_of("llama")
    tensors[f"{name}.{around}.weight"] = tensors.pop(f"{name}.weight")
    with pytest.raises(MappingError, match=r"^\S+: a LoRA of peft is inside.*$"):
        load_pretrained_lm(written(tmp_path, tensors, values_of("llama")))


def test_an_adapter_alone_is_told_from_a_model(tmp_path: Path) -> None:
    about = {"base_model_name_or_path": "owner/base", "peft_type": "LORA"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(about))
    save_file({"x.lora_A.weight": np.ones(2, np.float32)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"is an adapter .* for the model owner/base; .*merge"
    ):
        open_pretrained(tmp_path)  # there is no config.json either
    written(tmp_path, tensors_of("llama"), values_of("llama"))
    (note,) = open_pretrained(tmp_path).notes
    assert "the model beside it is taken without it" in note


def test_shards_without_their_index(tmp_path: Path) -> None:
    files, places, config = halves("llama")
    folder = sharded(tmp_path, files, places, config)
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(CheckpointError, match=r"index\.json is missing.* 2 files \(2 are here\)"):
        open_pretrained(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_what_git_lfs_left_in_place_of_the_weights(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(values_of("llama")))
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    (tmp_path / name).write_text(pointer)
    with pytest.raises(CheckpointError, match=rf"{name}: is a pointer of Git LFS.*git lfs pull"):
        open_pretrained(tmp_path)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_auto_is_the_dtype_of_the_parameters(dtype: str, tmp_path: Path) -> None:
    tensors = {name: value.astype(dtype) for name, value in tensors_of("llama").items()}
    folder = written(tmp_path, tensors, {**values_of("llama"), "dtype": "auto"})
    config, _ = load_pretrained_lm(folder)
    assert (config.dtype, config.param_dtype) == (dtype, dtype)


RECORDED = {"llama": "llama", "mistral": "mistral", "gemma3_text": "gemma3_text", "qwen2": "qwen2"}
PLACES = {
    "older": lambda name: f"language_model.{name}",
    "newer": lambda name: name.replace("model.", "model.language_model.", 1),
}


@pytest.mark.parametrize("names", PLACES)
@pytest.mark.parametrize("kind", [k for k, wrapper in WRAPPERS.items() if wrapper.text in RECORDED])
def test_the_language_model_of_a_multimodal_model(kind: str, names: str, tmp_path: Path) -> None:
    text = RECORDED[WRAPPERS[kind].text]
    tensors = {PLACES[names](name): value for name, value in tensors_of(text).items()}
    for place in ("vision_tower.", "model.vision_tower.", "multi_modal_projector.", "visual."):
        tensors[f"{place}layers.0.weight"] = np.ones((2, 2), np.float32)
    inner = values_of(text)
    if WRAPPERS[kind].always:
        del inner["model_type"]
    tied = inner.pop("tie_word_embeddings", FAMILIES[text].defaults["tie_word_embeddings"])
    config = {
        "model_type": kind, "text_config": inner, "vision_config": {"hidden_size": 7},
        "tie_word_embeddings": tied, "is_causal": WRAPPERS[kind].causal, "sliding_window": 1,
    }  # fmt: skip
    same(load_pretrained_lm(written(tmp_path, tensors, config)), load_pretrained_lm(FOLDERS / text))


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("kind", ["qwen2_vl", "qwen2_5_vl"])
def test_qwens_older_files_have_the_text_beside_the_images(
    kind: str, flat: bool, tmp_path: Path
) -> None:
    text = values_of("qwen2")
    theta = text.pop("rope_parameters")["rope_theta"]
    text |= {"rope_theta": theta, "rope_scaling": {"type": "mrope", "mrope_section": [1, 1]}}
    outer = {"model_type": kind, "vision_config": {"hidden_size": 7}, "tie_word_embeddings": False}
    config = {**text, **outer} if flat else {"text_config": text, **outer}
    tensors = tensors_of("qwen2") | {"visual.blocks.0.x": np.ones(2, np.float32)}
    found = load_pretrained_lm(written(tmp_path, tensors, config))
    same(found, load_pretrained_lm(FOLDERS / "qwen2"))


def test_the_program_lists_keys_that_are_passed_over_and_names_its_flag(tmp_path: Path) -> None:
    values = {**values_of("llama"), "first_odd": 1, "second_odd": False}
    folder = written(tmp_path / "in", tensors_of("llama"), values)
    done = invoke(convert_hf, folder, tmp_path / "out")
    assert done.exit_code == 0
    noted = [line for line in done.output.splitlines() if line.startswith("note: ")]
    assert len(noted) == 1
    assert noted[0].endswith("first_odd, second_odd")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [f"note: {note}" for note in manifest["notes"]] == noted
    written(folder, tensors_of("llama"), {**values, "per_layer_config": {"0": {}}})
    refused = invoke(convert_hf, folder, tmp_path / "other")
    assert refused.exit_code == 1
    assert "per_layer_config: found" in refused.output
    assert "--ignore-key" in refused.output
    assert "ignore_keys" not in refused.output
    taken = invoke(convert_hf, folder, tmp_path / "other", "--ignore-key", "per_layer_config")
    assert taken.exit_code == 0


@pytest.mark.parametrize("around", ["module.", "_orig_mod.model."])
def test_what_training_leaves_in_a_file(around: str, tmp_path: Path) -> None:
    tensors = {f"{around}{name}": value for name, value in tensors_of("llama").items()}
    for buffer in ("inv_freq", "cos_cached", "sin_cached"):
        name = f"{around}model.layers.1.self_attn.rotary_emb.{buffer}"
        tensors[name] = np.ones(4, np.float32)
    same(
        load_pretrained_lm(written(tmp_path, tensors, values_of("llama"))),
        load_pretrained_lm(FOLDERS / "llama"),
    )


def test_every_family_has_both_tables() -> None:
    assert FAMILIES.keys() == TABLES.keys()
