"""Quantised weights in files: dequantized as the formats define, and in whole models."""

import json
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from converters.arrays import BlockScaled, FlatLeaf, Mxfp4, Source, whole
from converters.errors import MappingError
from converters.huggingface import load_pretrained_lm
from converters.huggingface.files import read_safetensors
from converters.stores import LocalStore
from tests.converters.huggingface.recorded_models import FOLDERS

FLOAT32 = np.dtype(np.float32)
# FP4 (E2M1) by its code: OCP Microscaling Formats 1.0, table 5.
VALUES = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6]


def leaves(folder: Path, tensors: dict[str, np.ndarray]) -> dict[str, FlatLeaf]:
    save_file(tensors, folder / "model.safetensors")
    return read_safetensors(LocalStore(folder), "model.safetensors")


def test_numbers_of_mxfp4(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    blocks = generator.integers(0, 256, (2, 3, 2, 16), dtype=np.uint8)
    exponents = generator.integers(120, 135, (2, 3, 2), dtype=np.uint8)
    found = leaves(tmp_path, {"b": blocks, "e": exponents})
    array = Mxfp4(Source(found["b"]), Source(found["e"]), FLOAT32)
    wanted = [
        VALUES[byte >> shift & 15] * 2.0 ** (int(exponent) - 127)
        for block, exponent in zip(blocks.reshape(-1, 16), exponents.reshape(-1), strict=True)
        for byte in map(int, block)
        for shift in (0, 4)
    ]
    wanted = np.array(wanted, np.float32).reshape(2, 3, 64)

    def read(region: tuple[slice, ...]) -> np.ndarray:
        return array.read(region, lambda leaf: leaf.reader(1 << 20))

    np.testing.assert_array_equal(read(whole((2, 3, 64))), wanted)
    region = (slice(1, 2), slice(0, 2), slice(29, 37))  # across blocks
    np.testing.assert_array_equal(read(region), wanted[region])


def test_numbers_in_blocks_that_do_not_divide_them(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    weight = generator.normal(size=(7, 10)).astype(ml_dtypes.float8_e4m3fn)
    scales = generator.uniform(0.5, 2, (3, 3)).astype(np.float32)
    found = leaves(tmp_path, {"w": weight.view(np.uint8), "s": scales})
    spec = found["w"].spec
    typed = FlatLeaf(
        type(spec)(spec.path, spec.shape, weight.dtype, spec.shape, spec.location),
        found["w"].store, found["w"].key, found["w"].segments,
    )  # fmt: skip
    array = BlockScaled(Source(typed), Source(found["s"]), (3, 4), FLOAT32)
    rows, columns = np.arange(7) // 3, np.arange(10) // 4
    wanted = weight.astype(np.float32) * scales[rows][:, columns]
    for region in (whole((7, 10)), (slice(2, 5), slice(3, 9))):
        found_values = array.read(region, lambda leaf: leaf.reader(1 << 20))
        np.testing.assert_array_equal(found_values, wanted[region])
    with pytest.raises(ValueError, match=r"scales \[3, 3\] do not fit \[7, 10\] in blocks of"):
        BlockScaled(Source(typed), Source(found["s"]), (4, 4), FLOAT32)


def changed(name: str, folder: Path, tensors: dict[str, np.ndarray], about: dict) -> Path:
    """A recorded model with some of its tensors replaced by quantised ones."""
    config = json.loads((FOLDERS / name / "config.json").read_text())
    config["quantization_config"] = about
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    return folder


FP8 = {"quant_method": "fp8", "weight_block_size": [5, 4]}


def test_a_model_with_fp8_blocks_is_the_one_of_their_numbers(tmp_path: Path) -> None:
    plain = load_file(FOLDERS / "deepseek_v3" / "model.safetensors")
    stored, numbers = dict(plain), dict(plain)
    generator = np.random.default_rng(2)
    for name, value in plain.items():
        if not name.endswith("_proj.weight"):
            continue
        shape = tuple(-(-size // part) for size, part in zip(value.shape, (5, 4), strict=True))
        scales = generator.uniform(0.5, 2, shape).astype(np.float32)
        rows, columns = (np.arange(n) // part for n, part in zip(value.shape, (5, 4), strict=True))
        full = scales[rows][:, columns]
        stored[name] = (value / full).astype(ml_dtypes.float8_e4m3fn)
        stored[f"{name}_scale_inv"] = scales
        numbers[name] = stored[name].astype(np.float32) * full
    given = changed("deepseek_v3", tmp_path / "fp8", stored, FP8)
    (tmp_path / "plain").mkdir()
    shutil.copy(FOLDERS / "deepseek_v3" / "config.json", tmp_path / "plain")
    save_file(numbers, tmp_path / "plain" / "model.safetensors")
    _, found = load_pretrained_lm(given, "float32")
    _, wanted = load_pretrained_lm(tmp_path / "plain", "float32")
    experts, others = (tree["layers_1"]["moe"]["up"]["kernel"] for tree in (found, wanted))
    np.testing.assert_array_equal(experts, others)
    keys, others = (tree["layers_0"]["attention"]["key"]["kernel"] for tree in (found, wanted))
    np.testing.assert_array_equal(keys, others)


def test_fp8_of_any_family_in_scales_that_are_powers_of_two(tmp_path: Path) -> None:
    """Whole numbers: nothing is rounded. Scales of inputs are left out, as transformers does."""
    stored = load_file(FOLDERS / "llama" / "model.safetensors")
    name = "model.layers.1.mlp.up_proj"
    weight = np.arange(24 * 16, dtype=np.float32).reshape(24, 16) % 8
    stored[f"{name}.weight"] = weight.astype(ml_dtypes.float8_e4m3fn)
    scales = np.array([[2, 4], [0.5, 1], [8, 1]], np.float32).astype(ml_dtypes.float8_e8m0fnu)
    stored[f"{name}.activation_scale"] = np.array(3, np.float32)
    stored[f"{name}.weight_scale_inv"] = scales
    given = changed("llama", tmp_path / "model", stored, {**FP8, "weight_block_size": [8, 8]})
    _, params = load_pretrained_lm(given, "float32")
    full = np.kron(scales.astype(np.float32), np.ones((8, 8), np.float32))
    np.testing.assert_array_equal(params["layers_1"]["mlp"]["up"]["kernel"], weight * full)
    stored[f"{name}.weight_scale_inv"] = scales.view(np.uint8)  # exponents, that look like factors
    with pytest.raises(MappingError, match="is float8_e4m3fn with scales in uint8"):
        load_pretrained_lm(changed("llama", tmp_path / "bytes", stored, FP8))
    stored[f"{name}.weight_scale"] = stored.pop(f"{name}.weight_scale_inv")  # another form of FP8
    with pytest.raises(MappingError, match=r"^model\S+weight_scale: the weights are quantised.*$"):
        load_pretrained_lm(changed("llama", tmp_path / "other", stored, FP8))


@pytest.mark.parametrize(
    ("about", "message"),
    [
        (FP8, r"q_a_proj.weight: is float8_e4m3fn, and no .*weight_scale_inv beside it"),
        ({**FP8, "weight_block_size": [5]}, "weight_block_size: expected two numbers"),
        ({"quant_method": "gptq"}, r"quantised checkpoints \(gptq\) are not supported"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, about: dict, message: str) -> None:
    tensors = load_file(FOLDERS / "deepseek_v3" / "model.safetensors")
    name = "model.layers.0.self_attn.q_a_proj.weight"
    tensors[name] = tensors[name].astype(ml_dtypes.float8_e4m3fn)
    given = changed("deepseek_v3", tmp_path / "model", tensors, about)
    with pytest.raises(MappingError, match=message):
        load_pretrained_lm(given, "float32")


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (4, 1)])
def test_scales_of_whole_weights_or_rows(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Without `weight_block_size`, the blocks are as many as there are scales."""
    tensors = load_file(FOLDERS / "deepseek_v3" / "model.safetensors")
    name = "model.layers.0.mlp.down_proj.weight"  # [16, 24]
    tensors[name] = (4 * tensors[name]).astype(ml_dtypes.float8_e4m3fn)
    scales = np.random.default_rng(3).uniform(0.5, 2, shape).astype(np.float32)
    tensors[f"{name}_scale_inv"] = scales
    given = changed("deepseek_v3", tmp_path / "model", tensors, {"quant_method": "fp8"})
    _, params = load_pretrained_lm(given, "float32")
    rows = np.broadcast_to(scales.reshape(-1), (4,)) if scales.size > 1 else scales.reshape(1)
    full = np.repeat(rows, 16 // rows.size)[:, None]
    wanted = tensors[name].astype(np.float32) * full
    np.testing.assert_allclose(params["layers_0"]["mlp"]["down"]["kernel"], wanted, rtol=1e-6)
