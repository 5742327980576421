"""Checkpoints that are damaged, half written or tampered with, made from good ones by one edit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import msgpack
import pytest

from converters.errors import CheckpointError, ConversionError
from converters.paxml.checkpoint import Checkpoint, open_checkpoint

Editable = Callable[[str], Path]
STEP = "checkpoint_00000004"
PARAM = "lm.transformer.repeat.sub.x_layers_0.ff_layer.ffn_layer1.linear.w"
PATH = PARAM.replace(".", "/")


@pytest.fixture
def gda(editable: Editable) -> Path:
    return editable("LlamaRepeat_gda")


@pytest.fixture
def ocdbt(editable: Editable) -> Path:
    return editable("LlamaGqa_ocdbt")


def read_all(checkpoint: Checkpoint) -> None:
    for leaf in checkpoint.leaves.values():
        leaf.read()


def fails(place: Path, text: str) -> None:
    with pytest.raises(CheckpointError, match=text):
        open_checkpoint(place)


def test_truncated_chunk(gda: Path) -> None:
    chunk = gda / STEP / "state" / f"mdl_vars.params.{PARAM}" / "0.0.0"
    chunk.write_bytes(chunk.read_bytes()[: chunk.stat().st_size // 2])
    checkpoint = open_checkpoint(gda)
    with pytest.raises(CheckpointError, match=rf"mdl_vars/params/{PATH}: chunk 0.0.0 .* damaged"):
        read_all(checkpoint)


def test_missing_chunk(gda: Path) -> None:
    (gda / STEP / "state" / f"mdl_vars.params.{PARAM}" / "0.0.0").unlink()
    fails(gda, rf"mdl_vars/params/{PATH}: .* lacks 1 of 1 chunk files \(0.0.0\)")


def test_missing_directory_of_a_variable(gda: Path) -> None:
    shutil.rmtree(gda / STEP / "state" / f"mdl_vars.params.{PARAM}")
    fails(
        gda, rf"^[^\n]*mdl_vars/params/{PATH}: no array, though metadata/metadata lists it[^\n]*$"
    )


def test_missing_directory_of_a_variable_without_metadata(gda: Path) -> None:
    shutil.rmtree(gda / STEP / "metadata")
    shutil.rmtree(gda / STEP / "state" / f"mdl_vars.params.{PARAM}")
    fails(gda, rf"mdl_vars/params/{PATH}: no array, though opt_states/0/p#3#i-1/2/m/params/{PATH}")


@pytest.mark.parametrize(("field", "other"), [("m", "v"), ("v", "m")])
def test_missing_directory_of_a_moment(field: str, other: str, gda: Path) -> None:
    shutil.rmtree(gda / STEP / "state" / f"opt_states_0.p#3#i-1_2.{field}.params.{PARAM}")
    fails(
        gda, rf"opt_states/0/p#3#i-1/2/{field}/params/{PATH}: no array, though {other} of the same"
    )


@pytest.mark.parametrize("index", [0, 2])
def test_missing_directory_of_a_count(index: int, gda: Path) -> None:
    shutil.rmtree(gda / STEP / "state" / f"opt_states_0.no_prefix_{index}.count")
    fails(gda, f"opt_states/0/no_prefix/{index}/count: no array")


def test_missing_step(gda: Path) -> None:
    shutil.rmtree(gda / STEP / "state" / "step")
    fails(gda, "step: no such leaf")


def test_missing_zarray(gda: Path) -> None:
    (gda / STEP / "state" / f"mdl_vars.params.{PARAM}" / ".zarray").unlink()
    fails(gda, rf"^[^\n]*mdl_vars/params/{PATH}: .* has no .zarray[^\n]*$")


@pytest.mark.parametrize(
    ("name", "dtype", "text"),
    [
        (f"mdl_vars.params.{PARAM}", "<i4", "has dtype int32, metadata/metadata says float32"),
        (f"opt_states_0.p#3#i-1_2.v.params.{PARAM}", "<i4", "has dtype int32, expected a floating"),
        ("opt_states_0.p#3#i-1_0.count", "<f4", r"has shape \[3\] float32, expected \[3\] int32"),
    ],
)
def test_wrong_dtype_of_the_same_size(name: str, dtype: str, text: str, gda: Path) -> None:
    file = gda / STEP / "state" / name / ".zarray"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"dtype": dtype}))
    fails(gda, text)


def test_wrong_dtype_of_a_variable_without_metadata(gda: Path) -> None:
    shutil.rmtree(gda / STEP / "metadata")
    file = gda / STEP / "state" / f"mdl_vars.params.{PARAM}" / ".zarray"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"dtype": "<i4"}))
    fails(gda, rf"mdl_vars/params/{PATH}: .* has dtype int32, but it has the optimizer state")


def test_array_of_another_checkpoint(gda: Path) -> None:
    state = gda / STEP / "state"
    shutil.copytree(state / "mdl_vars.params.lm.final_ln.scale", state / "mdl_vars.params.lm.old")
    fails(gda, r"mdl_vars/params/lm/old: metadata/metadata does not list this array")


def test_array_stored_under_two_names(gda: Path) -> None:
    state = gda / STEP / "state"
    shutil.copytree(
        state / "opt_states_0.no_prefix_0.count", state / "opt_states.0.no_prefix.0.count"
    )
    fails(gda, "opt_states/0/no_prefix/0/count: stored twice")


@pytest.mark.parametrize("name", ["mdl_vars...evil", "opt_states_0_2.m.params..evil"])
def test_names_with_unsafe_parts(name: str, gda: Path) -> None:
    state = gda / STEP / "state"
    shutil.copytree(state / "mdl_vars.params.lm.final_ln.scale", state / name)
    fails(gda, rf"{name}: refused, its key '' is empty or could lead out")


def test_shape_smaller_than_the_metadata_says(gda: Path) -> None:
    file = gda / STEP / "metadata" / "metadata"
    file.write_text(
        file.read_text().replace('"unpadded_shape": [96, 32]', '"unpadded_shape": [99, 32]')
    )
    fails(gda, r"emb_var has shape \[96, 32\], metadata/metadata says \[99, 32\]")


def test_metadata_that_is_not_json(gda: Path) -> None:
    (gda / STEP / "metadata" / "metadata").write_text('{"version": 1.1, "train_st')
    fails(gda, "metadata/metadata: not JSON: .* without its metadata/ directory it can be read too")


def test_unknown_version(gda: Path) -> None:
    (gda / STEP / "metadata" / "metadata").write_text('{"version": 9.0}')
    fails(gda, "version 9.0 is not supported; known are 0.0, 1.0, 1.1, 1.2")


def test_without_metadata_directory(gda: Path) -> None:
    shutil.rmtree(gda / STEP / "metadata")
    checkpoint = open_checkpoint(gda)
    read_all(checkpoint)
    assert checkpoint.layout.version == "0.0"
    assert any("no metadata/ directory" in note for note in checkpoint.notes)


def test_unreadable_directories_are_one_clear_error(gda: Path) -> None:
    chunk = gda / STEP / "state" / "step" / "0"
    chunk.unlink()
    chunk.mkdir()  # reading a directory fails for everybody, root included
    (chunk / "x").touch()
    with pytest.raises(ConversionError, match="step"):
        open_checkpoint(gda)


def test_ocdbt_without_manifest(ocdbt: Path) -> None:
    (ocdbt / STEP / "state" / "manifest.ocdbt").unlink()
    fails(ocdbt, r"manifest.ocdbt is missing \(the other files are those of an OCDBT database\)")


def test_ocdbt_with_damaged_manifest(ocdbt: Path) -> None:
    manifest = ocdbt / STEP / "state" / "manifest.ocdbt"
    data = bytearray(manifest.read_bytes())
    data[20] ^= 1
    manifest.write_bytes(data)
    with pytest.raises(ConversionError, match=r"state: cannot list: .*manifest.ocdbt"):
        open_checkpoint(ocdbt)


def test_ocdbt_with_truncated_data(ocdbt: Path) -> None:
    largest = max((ocdbt / STEP / "state").rglob("d/*"), key=lambda file: file.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    with pytest.raises(ConversionError, match=r"state/.*\.[a-z_0-9]+/"):
        read_all(open_checkpoint(ocdbt))


def test_ocdbt_without_tree(ocdbt: Path) -> None:
    state = ocdbt / STEP / "state"
    whole = open_checkpoint(ocdbt)
    (state / "_METADATA").unlink()
    checkpoint = open_checkpoint(ocdbt)
    assert "no _METADATA: the tree was taken from checkpoint" in checkpoint.notes
    assert list(checkpoint.leaves) == list(whole.leaves)
    (state / "checkpoint").unlink()
    checkpoint = open_checkpoint(ocdbt)
    assert "no _METADATA: the tree was taken from the keys of the database" in checkpoint.notes
    assert list(checkpoint.leaves) == list(whole.leaves)


def test_ocdbt_array_that_the_tree_lacks(ocdbt: Path) -> None:
    file = ocdbt / STEP / "state" / "_METADATA"
    found = json.loads(file.read_text())
    del found["tree_metadata"]["('mdl_vars', 'params', 'lm', 'final_ln', 'scale')"]
    file.write_text(json.dumps(found))
    fails(ocdbt, r"mdl_vars/params/lm/final_ln/scale: stored as .*_METADATA does not list it")


def test_ocdbt_array_that_only_the_tree_has(ocdbt: Path) -> None:
    file = ocdbt / STEP / "state" / "_METADATA"
    file.write_text(file.read_text().replace('"key": "emb_var"', '"key": "emb_vax"'))
    fails(
        ocdbt, r"embedding_lookup/emb_vax: no array mdl_vars.*emb_vax, though .*_METADATA lists it"
    )


def edit_placeholder(ocdbt: Path, edit: Callable[[dict], None]) -> None:
    file = ocdbt / STEP / "state" / "checkpoint"
    tree = msgpack.unpackb(file.read_bytes())
    edit(tree["mdl_vars"]["params"]["lm"])
    file.write_bytes(msgpack.packb(tree))


def test_placeholder_of_another_array(ocdbt: Path) -> None:
    def edit(lm: dict) -> None:
        lm["final_ln"]["scale"] = "PLACEHOLDER://mdl_vars.params.lm.other"

    edit_placeholder(ocdbt, edit)
    fails(
        ocdbt,
        "the placeholder at mdl_vars.params.lm.final_ln.scale names 'mdl_vars.params.lm.other'",
    )


@pytest.mark.parametrize("key", ["../../../evil", "/etc/evil", "..", ""])
def test_key_that_leads_out_of_the_directory(key: str, ocdbt: Path) -> None:
    def edit(lm: dict) -> None:
        lm[key] = "PLACEHOLDER://mdl_vars.params.lm.final_ln.scale"

    edit_placeholder(ocdbt, edit)
    fails(ocdbt, "could lead out of the directory")


def test_key_that_leads_out_of_the_directory_in_the_metadata(gda: Path) -> None:
    file = gda / STEP / "metadata" / "metadata"
    file.write_text(file.read_text().replace('"emb_var"', '"../emb_var"'))
    fails(gda, "'../emb_var' is empty or could lead out of the directory")


def test_truncated_flax_file(editable: Editable) -> None:
    place = editable("LlamaAdafactor_flax")
    file = place / "checkpoint_4" / "state" / "checkpoint"
    file.write_bytes(file.read_bytes()[:-1000])
    fails(
        place, r"state/checkpoint: not a whole flax msgpack file: at byte \d+ of \d+: .* truncated"
    )


def test_flax_file_one_leaf_short(editable: Editable) -> None:
    place = editable("LlamaAdafactor_flax")
    file = place / "checkpoint_4" / "state" / "checkpoint"
    found = msgpack.unpackb(file.read_bytes())
    found["flattened_state"].pop()
    file.write_bytes(msgpack.packb(found))
    fails(place, "flattened_state has 130 leaves, but str_pytree_state names 131")


def test_flax_file_with_leaves_swapped(editable: Editable) -> None:
    place = editable("LlamaAdafactor_flax")
    file = place / "checkpoint_4" / "state" / "checkpoint"
    found = msgpack.unpackb(file.read_bytes())
    leaves = found["flattened_state"]
    leaves[1], leaves[2] = leaves[2], leaves[1]
    file.write_bytes(msgpack.packb(found))
    fails(place, r"emb_var: state/checkpoint has shape \[32\], metadata/metadata says \[96, 32\]")


def test_empty_flax_file(tmp_path: Path) -> None:
    (tmp_path / "checkpoint_4").touch()
    with pytest.raises(ConversionError, match=r"checkpoint_4: .*at byte 0 of 0"):
        open_checkpoint(tmp_path)
