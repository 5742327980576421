"""TimesFM checkpoints: recognised by their tree, every leaf bit for bit, in every layout."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from converters import convert
from converters.errors import MappingError
from converters.rules import FAMILIES, detect, forecaster_prefix
from tests.converters import expected, stored
from tests.converters.forecasters import Sizes, random_forecaster, shapes, write_forecaster
from tests.paxml_states import write_metadata, write_ocdbt

NAMES = (
    ("input_ff_layer/", "input_block/"), ("horizon_ff_layer/", "horizon_block/"),
    ("hidden_layer/", "hidden/"), ("output_layer/", "output/"), ("residual_layer/", "residual/"),
    ("linear/w", "kernel"), ("bias/b", "bias"),
    ("freq_emb/emb_var", "frequency_embedding/embedding"),
)  # fmt: skip


def wanted(path: str) -> str:
    """The target of a leaf, from the names that other families use for the parts of a layer."""
    _, found, leaf = path.partition("stacked_transformer_layer/x_layers_")
    if found:
        number, _, rest = leaf.partition("/")
        return f"decoder/layers_{number}/{expected.named(rest)}"
    for old, new in NAMES:
        path = path.replace(old, new)
    return path


def test_a_tree_is_known_by_its_names():
    assert "timesfm" in FAMILIES
    tree = shapes(Sizes())
    assert detect(tree) == "timesfm"
    assert detect({f"core_layer/{name}": shape for name, shape in tree.items()}) == "timesfm"
    assert forecaster_prefix({f"a/b/{name}": 0 for name in tree}) == "a/b/"
    mixed = {**tree, **{f"core_layer/{name}": shape for name, shape in tree.items()}}
    assert forecaster_prefix(mixed) is None
    without = {name: s for name, s in tree.items() if not name.startswith("horizon_ff_layer")}
    assert detect(without) == "generic"


@pytest.mark.parametrize("name", ["TimesFM_shared", "TimesFM_2", "TimesFM_finetuned"])
def test_every_recorded_leaf_is_there_bit_for_bit(
    name: str, recording: Callable[[str], Path], tmp_path: Path
):
    case = recording(name)
    convert(case / "checkpoint", tmp_path / "out")
    manifest = stored.read_manifest(tmp_path / "out")
    assert manifest["family"] == "timesfm"
    found = stored.read_output(tmp_path / "out")
    leaves = [leaf for leaf in manifest["leaves"] if leaf["target"].startswith("params/")]
    assert len(leaves) == 13 + 16 * 2
    for leaf in leaves:
        (source,) = leaf["sources"]
        inner = source.removeprefix("mdl_vars/params/").removeprefix("core_layer/")
        assert leaf["target"] == f"params/{wanted(inner)}"
        assert stored.leaf_digest(found[leaf["target"]]) == leaf["sha256"]


@pytest.mark.parametrize("prefix", ["", "core_layer/"])
@pytest.mark.parametrize("scan", [None, True])
def test_a_zarr_checkpoint_of_other_sizes(tmp_path: Path, prefix: str, scan: bool | None):
    params = random_forecaster(Sizes(layers=11, heads=2, frequencies=0))
    convert(write_forecaster(tmp_path, params, prefix), tmp_path / "out", scan_layers=scan)
    found = stored.read_output(tmp_path / "out")
    for name, values in params.items():
        target = f"params/{wanted(name)}"
        if scan and "x_layers_" in name:
            number, _, rest = target.removeprefix("params/decoder/layers_").partition("/")
            stack = found[f"params/decoder/layers/{rest}"]
            np.testing.assert_array_equal(stack[int(number)], values)
        else:
            np.testing.assert_array_equal(found[target], values)


def test_the_folder_as_it_is_published(recording: Callable[[str], Path], tmp_path: Path):
    """`checkpoints/checkpoint_1100000`, with an additional text file `descriptor`."""
    place = tmp_path / "timesfm" / "checkpoints"
    shutil.copytree(recording("TimesFM_shared") / "checkpoint", place)
    (place / "checkpoint_1100000" / "descriptor").mkdir()
    (place / "checkpoint_1100000" / "descriptor" / "descriptor.pbtxt").write_text("job: 1\n")
    (tmp_path / "timesfm" / "README.md").write_text("TimesFM\n")
    for number, source in enumerate((place.parent, place, place / "checkpoint_1100000")):
        convert(source, tmp_path / f"out_{number}")
    manifest = stored.read_manifest(tmp_path / "out_2")
    assert (manifest["family"], manifest["source"]["step"]) == ("timesfm", 1100000)


def test_an_ocdbt_checkpoint(tmp_path: Path):
    params = random_forecaster(Sizes(quantiles=3))
    leaves = {f"mdl_vars/params/core_layer/{name}": value for name, value in params.items()}
    leaves["step"] = np.asarray(3, np.uint32)
    step = tmp_path / "job" / "checkpoint_00000003"
    write_ocdbt(step / "state", leaves)
    write_metadata(step, 1.2, leaves)
    convert(tmp_path / "job", tmp_path / "out", overrides={"quantiles": [0.1, 0.5, 0.9]})
    found = stored.read_output(tmp_path / "out")
    for name, values in params.items():
        np.testing.assert_array_equal(found[f"params/{wanted(name)}"], values)


def test_averages_are_named_and_kept_beside_the_weights(
    recording: Callable[[str], Path], tmp_path: Path
):
    convert(recording("TimesFM_finetuned") / "checkpoint", tmp_path / "out")
    notes = stored.read_manifest(tmp_path / "out")["notes"]
    assert any("ema" in note and "mdl_vars" in note for note in notes)
    found = stored.read_output(tmp_path / "out")
    weight = found["params/horizon_block/output/kernel"]
    average = found["state/optimizer/ema/ema/horizon_block/output/kernel"]
    assert weight.shape == average.shape
    assert not np.array_equal(weight, average)


def test_strict_refuses_what_no_tree_tells(recording: Callable[[str], Path], tmp_path: Path):
    place = recording("TimesFM_shared") / "checkpoint"
    with pytest.raises(MappingError, match=r"use_positional_embedding=true, horizon_length=16"):
        convert(place, tmp_path / "out", strict=True)
    given = {"use_positional_embedding": True, "quantiles": "[0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9]",
             "context_length": 64}  # fmt: skip
    convert(place, tmp_path / "out", strict=True, overrides=given)
    assert "forward" not in stored.read_manifest(tmp_path / "out")["assumed"]
