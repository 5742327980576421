import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from converters.errors import CheckpointError
from converters.paxml.checkpoint import open_checkpoint
from tests import paxml_states as states

Recording = Callable[[str], Path]

# case -> kind, version, era (see `Layout`)
RECORDED = {
    "BatchNormNonTrainable_ocdbt": ("ocdbt", "1.2", "paxml 1.4 or newer"),
    "GptLearned_gda": ("zarr", "1.1", "paxml 1.4 or newer"),
    "GptRepeat_v00gda_gzip": ("zarr", "0.0", "paxml 0.1 - 0.2"),
    "GptSinusoid_ocdbt": ("ocdbt", "1.2", "paxml 1.4 or newer"),
    "LlamaAdafactor_flax": ("msgpack", "1.1", "paxml 1.1 - 1.4"),
    "LlamaAdafactor_gda": ("zarr", "1.1", "paxml 1.4 or newer"),
    "LlamaBf16_gda": ("zarr", "1.1", "paxml 1.4 or newer"),
    "LlamaBf16_ocdbt": ("ocdbt", "1.2", "paxml 1.4 or newer"),
    "LlamaChunkedMsgpack_flax": ("msgpack", "1.1", "paxml 1.1 - 1.4"),
    "LlamaGqa_ocdbt": ("ocdbt", "1.2", "paxml 1.4 or newer"),
    "LlamaPadded_gda": ("zarr", "1.1", "paxml 1.4 or newer"),
    "LlamaRepeatEma_v00flax_file": ("msgpack", "0.0", "paxml 0.1 - 0.2"),
    "LlamaRepeat_gda": ("zarr", "1.1", "paxml 1.4 or newer"),
    "LlamaRepeat_paxml100": ("zarr", "1.0", "paxml 0.4 - 1.0"),
    "LlamaRepeat_paxml110_ocdbt": ("ocdbt", "1.2", "paxml 1.1"),
    "LlamaSgdm_ocdbt": ("ocdbt", "1.2", "paxml 1.4 or newer"),
    "LlamaSharded_ocdbt": ("ocdbt", "1.2", "paxml 1.4 or newer"),
    "LlamaWeightsOnly_flax": ("msgpack", "1.1", "paxml 1.1 - 1.4"),
    "Llama_v11orbaxnames": ("zarr", "1.1", "paxml 0.3"),
    "MoeGpt_gda": ("zarr", "1.1", "paxml 1.4 or newer"),
    "PalmLike_gda": ("zarr", "1.1", "paxml 1.4 or newer"),
    "Pipe2_gda": ("zarr", "1.1", "paxml 1.4 or newer"),
    "PmapGpt_flax": ("msgpack", "1.1", "paxml 1.1 - 1.4"),
    "QuantInt8Linear_gda": ("zarr", "1.1", "paxml 1.4 or newer"),
    "b_everywhere": ("ocdbt", "1.2", "paxml 1.4 or newer"),
    "d_correction_frozen_lm": ("ocdbt", "1.2", "paxml 1.4 or newer"),
    "g_stacked_layers": ("ocdbt", "1.2", "paxml 1.4 or newer"),
    "i4_sep_emb_trainable_pos": ("ocdbt", "1.2", "paxml 1.4 or newer"),
    "k_adam": ("ocdbt", "1.2", "paxml 1.4 or newer"),
}


def differences(checkpoint: Path, manifest: Path, cast_to: str | None = None) -> list[str]:
    """Differences between the leaves of a checkpoint and its recording's manifest."""
    wanted = json.loads(manifest.read_text())["leaves"]
    found = open_checkpoint(checkpoint).leaves
    wrong = sorted(set(wanted) ^ set(found))
    for path in set(wanted) & set(found):
        values = found[path].read()
        assert values.shape == found[path].spec.shape
        assert values.dtype == found[path].spec.dtype
        if cast_to and values.dtype == np.float32:
            values = values.astype(cast_to)
        told = wanted[path]
        if (list(values.shape), values.dtype.name) != (told["shape"], told["dtype"]):
            wrong.append(f"{path}: {values.shape} {values.dtype}, recorded {told}")
        elif hashlib.sha256(values.tobytes()).hexdigest() != told["sha256"]:
            wrong.append(f"{path}: other values")
    return wrong


@pytest.mark.parametrize("case", RECORDED)
def test_reads_what_paxml_restores(case: str, recording: Recording) -> None:
    place = recording(case)
    # PAXml casts a bf16 model on restore; the recording holds that, the checkpoint float32.
    cast_to = "bfloat16" if case == "LlamaBf16_gda" else None
    assert differences(place / "checkpoint", place / "manifest.json", cast_to) == []


@pytest.mark.parametrize("case", RECORDED)
def test_says_what_it_found(case: str, recording: Recording) -> None:
    layout = open_checkpoint(recording(case) / "checkpoint").layout
    assert (layout.kind, layout.version, layout.era) == RECORDED[case]


def test_the_same_model_in_two_layouts(recording: Recording) -> None:
    place = recording("g_stacked_layers")
    assert differences(place / "checkpoint_nonocdbt", place / "manifest.json") == []


@pytest.mark.parametrize("table", ["item_min", "item_full", "cluster_min", "cluster_full", "lm"])
def test_tables_of_their_own(table: str, recording: Recording) -> None:
    checkpoint = open_checkpoint(recording("n_init_rules") / table)
    assert checkpoint.step == (104000 if table == "lm" else 100000)
    for leaf in checkpoint.leaves.values():
        assert leaf.read().shape == leaf.spec.shape


def test_leaves_come_in_the_order_of_the_train_state(recording: Recording) -> None:
    paths = list(open_checkpoint(recording("LlamaRepeat_gda") / "checkpoint").leaves)
    tops = [path.split("/")[0] for path in paths]
    assert paths[0] == "step"
    assert tops == sorted(tops, key=["step", "mdl_vars", "opt_states"].index)
    assert paths[-1] == "opt_states/0/p#3#i-1/3/count"


@pytest.mark.parametrize(
    ("case", "masked", "empty"),
    [
        ("LlamaRepeatEma_v00flax_file", 36, ("extra_state",)),  # MaskedNode in a treedef
        ("LlamaRepeat_paxml110_ocdbt", 24, ("extra_state",)),  # None in `checkpoint`
        ("BatchNormNonTrainable_ocdbt", 0, ("opt_states", "extra_state")),  # a placeholder
        ("LlamaWeightsOnly_flax", 0, ("opt_states", "extra_state")),  # [] in a treedef
        ("QuantInt8Linear_gda", 0, ()),  # nothing at all
    ],
)
def test_masked_and_empty_places(
    case: str, masked: int, empty: tuple[str, ...], recording: Recording
) -> None:
    checkpoint = open_checkpoint(recording(case) / "checkpoint")
    assert len(checkpoint.masked) == masked
    assert checkpoint.empty == empty
    assert not set(checkpoint.masked) & set(checkpoint.leaves)


def test_masked_places_name_the_group_in_every_layout(recording: Recording) -> None:
    masked = open_checkpoint(recording("LlamaRepeat_paxml110_ocdbt") / "checkpoint").masked
    assert "opt_states/0/p#3#i-1/2/m/params/lm/final_ln/scale" in masked


def test_bfloat16_model_stored_as_float32(recording: Recording) -> None:
    checkpoint = open_checkpoint(recording("LlamaBf16_gda") / "checkpoint")
    spec = checkpoint.leaves["mdl_vars/params/lm/final_ln/scale"].spec
    assert spec.dtype == np.float32
    assert spec.declared_dtype is not None
    assert spec.declared_dtype.name == "bfloat16"
    assert any(
        "21 variables are stored as float32, the model's dtype" in n for n in checkpoint.notes
    )
    assert open_checkpoint(recording("LlamaBf16_ocdbt") / "checkpoint").notes == ()


def test_padding_is_taken_off_moments_too(recording: Recording) -> None:
    leaves = open_checkpoint(recording("LlamaPadded_gda") / "checkpoint").leaves
    for start in ("mdl_vars", "opt_states/0/2/m", "opt_states/0/2/v"):
        spec = leaves[f"{start}/params/lm/softmax/logits_ffn/linear/w"].spec
        assert (spec.shape, spec.stored_shape) == ((32, 90), (32, 92))


def test_frozen_variables_are_noted(recording: Recording) -> None:
    notes = open_checkpoint(recording("d_correction_frozen_lm") / "checkpoint").notes
    assert notes[0].startswith("15 variables have no optimizer state (frozen): mdl_vars/params/lm/")


def test_finds_the_dumps_of_the_job(recording: Recording, tmp_path: Path) -> None:
    case = recording("LlamaRepeat_gda")
    beside = open_checkpoint(case / "checkpoint").job_files
    assert beside is not None
    assert beside.local_path() == case / "job_files"
    job = tmp_path / "job"
    shutil.copytree(case / "checkpoint", job / "checkpoints")
    shutil.copy(case / "job_files" / "model_params.txt", job)
    step = job / "checkpoints" / "checkpoint_00000004"
    for place in (job, job / "checkpoints", step, step / "state"):
        found = open_checkpoint(place).job_files
        assert found is not None
        assert found.local_path() == job
    assert open_checkpoint(recording("Llama_v11orbaxnames") / "checkpoint").job_files is None


def test_every_problem_is_in_one_message(tmp_path: Path) -> None:
    arrays = states.adam_state(a=np.ones(3, np.float32), b=np.ones((2, 2), np.float32))
    step = tmp_path / "checkpoint_00000004"
    states.write_zarr(step / "state", arrays)
    states.write_metadata(step, 1.1, arrays)
    shutil.rmtree(step / "state" / "mdl_vars.params.a")
    shutil.rmtree(step / "state" / "opt_states_0_2.v.params.b")
    (step / "state" / "opt_states_0_2.m.params.b" / "1.0").unlink(missing_ok=True)
    (step / "state" / "opt_states_0_2.m.params.b" / "0.0").unlink()
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path)
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("checkpoint_00000004: 3 problems:")
    assert any(line.startswith("  mdl_vars/params/a: no array, though metadata") for line in lines)
    assert any(line.startswith("  opt_states/0/2/v/params/b: no array, though m") for line in lines)
    assert any("opt_states_0_2.m.params.b lacks 1 of 1 chunk files" in line for line in lines)


def test_a_very_long_list_of_problems_is_cut(tmp_path: Path) -> None:
    params = {f"p{i}": np.ones((), np.float32) for i in range(150)}
    step = tmp_path / "checkpoint_00000004"
    arrays = states.adam_state(**params)
    states.write_metadata(step, 1.1, arrays)
    states.write_zarr(step / "state", {"step": arrays["step"]})
    with pytest.raises(CheckpointError, match=r"151 problems:(.|\n)*and 51 more$"):
        open_checkpoint(tmp_path)


def test_step_of_the_name_and_of_the_leaf(tmp_path: Path) -> None:
    arrays = states.adam_state(a=np.ones(3, np.float32))
    states.write_zarr(tmp_path / "checkpoint_00000009" / "state", arrays)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.step == 4
    assert any("name says step 9, its step leaf says 4" in note for note in checkpoint.notes)


def test_masked_variables_of_the_metadata(tmp_path: Path) -> None:
    arrays = states.adam_state(a=np.ones(3, np.float32))
    step = tmp_path / "checkpoint_00000004"
    states.write_zarr(step / "state", arrays)
    states.write_metadata(step, 1.1, arrays)
    file = step / "metadata" / "metadata"
    found = json.loads(file.read_text())
    found["train_state_metadata"]["mdl_vars"]["params"]["b"] = {
        "_array_metadata_tag": True,
        "is_optax_masked_node": True,
    }
    file.write_text(json.dumps(found))
    assert open_checkpoint(tmp_path).masked == ("mdl_vars/params/b",)
