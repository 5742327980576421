"""Bad input to the command: exit code 1, one clear message, nothing under OUT."""

import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import msgpack
import numpy as np
import orbax.checkpoint as ocp
import pytest
from click.testing import CliRunner

from converters.commands.convert import convert

Editable = Callable[[str], Path]
BETAS = ("--set", "beta1=0.9", "--set", "beta2=0.99")
STEP = "checkpoint_00000004"
WEIGHT = "lm/transformer/repeat/sub/x_layers_0/ff_layer/ffn_layer1/linear/w"


def weight(checkpoint: Path) -> Path:
    """Directory of a weight in a zarr checkpoint."""
    return checkpoint / STEP / "state" / f"mdl_vars.params.{WEIGHT.replace('/', '.')}"


def state(checkpoint: Path) -> Path:
    (step,) = checkpoint.iterdir()
    return step / "state"


def edit_json(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def halve(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file: Path, at: int = 12) -> None:
    """Flip one bit inside the header of zstd's first block."""
    data = bytearray(file.read_bytes())
    data[at] ^= 0x10
    file.write_bytes(data)


def halve_largest(folder: Path) -> None:
    halve(max((f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size))


def drop_leaf(checkpoint: Path) -> None:
    file = state(checkpoint) / "checkpoint"
    found = msgpack.unpackb(file.read_bytes())
    found["flattened_state"].pop()
    file.write_bytes(msgpack.packb(found))


def lead_out(checkpoint: Path) -> None:
    file = state(checkpoint) / "checkpoint"
    found = msgpack.unpackb(file.read_bytes())
    found["mdl_vars"]["params"]["../../../evil"] = "PLACEHOLDER://../../../evil"
    file.write_bytes(msgpack.packb(found))


def name_another(checkpoint: Path) -> None:
    """Let a placeholder name another array than its own."""
    file = state(checkpoint) / "checkpoint"
    found = msgpack.unpackb(file.read_bytes())
    params = found["mdl_vars"]["params"]["lm"]
    params["final_ln"]["scale"], params["final_ln"]["bias"] = (
        params["final_ln"]["bias"],
        params["final_ln"]["scale"],
    )
    file.write_bytes(msgpack.packb(found))


def in_place_of_a_file(file: Path) -> None:
    """Put a directory in place of a file: nobody can read it, root included."""
    file.unlink()
    (file / "inside").mkdir(parents=True)


def to_tmp(checkpoint: Path) -> None:
    (checkpoint / STEP).rename(checkpoint / f"{STEP}.orbax-checkpoint-tmp-1795313314660170")


GDA, OCDBT, FLAX = "LlamaRepeat_gda", "GptSinusoid_ocdbt", "LlamaAdafactor_flax"

# fmt: off
DAMAGE = {
    # case: (recording, what is done to its checkpoint/, what the message says)
    "truncated chunk": (GDA, lambda c: halve(weight(c) / "0.0.0"),
        f"mdl_vars/params/{WEIGHT}: chunk 0.0.0 of .* is damaged: .*stops early.*Copy the"),
    "bit flip in a chunk": (GDA, lambda c: flip(weight(c) / "0.0.0"),
        f"mdl_vars/params/{WEIGHT}: chunk 0.0.0 of .*/checkpoint/{STEP}/.* is damaged"),
    "empty chunk": (GDA, lambda c: (weight(c) / "0.0.0").write_bytes(b""),
        f"mdl_vars/params/{WEIGHT}: chunk 0.0.0 .* is damaged"),
    "missing chunk": (GDA, lambda c: (weight(c) / "0.0.0").unlink(),
        f"mdl_vars/params/{WEIGHT}: .*lacks 1 of 1 chunk files"),
    "unreadable chunk": (GDA, lambda c: in_place_of_a_file(weight(c) / "0.0.0"),
        WEIGHT.replace("/", r"[./]")),
    "missing leaf": (GDA, lambda c: shutil.rmtree(weight(c)),
        f"mdl_vars/params/{WEIGHT}: no array, though metadata/metadata lists it"),
    "missing .zarray": (GDA, lambda c: (weight(c) / ".zarray").unlink(),
        f"mdl_vars/params/{WEIGHT}: .* has no .zarray"),
    "unreadable .zarray": (GDA, lambda c: in_place_of_a_file(weight(c) / ".zarray"),
        WEIGHT.replace("/", r"[./]")),
    "wrong dtype": (GDA, lambda c: edit_json(weight(c) / ".zarray", dtype="<i4"),
        f"mdl_vars/params/{WEIGHT}: .*int32, metadata/metadata says float32"),
    "wrong shape": (GDA, lambda c: edit_json(weight(c) / ".zarray", shape=[3, 32, 1]),
        f"mdl_vars/params/{WEIGHT}: .*shape.*metadata/metadata says"),
    "metadata that is no JSON": (GDA, lambda c: halve(c / STEP / "metadata" / "metadata"),
        "metadata/metadata: not JSON"),
    "unknown version": (GDA, lambda c: edit_json(c / STEP / "metadata" / "metadata", version=9.0),
        "version 9.0 is not supported; known are 0.0"),
    "half-written step": (GDA, to_tmp,
        "no finished checkpoint found in it\n.*orbax-checkpoint-tmp.*: unfinished"),
    "step without state": (GDA, lambda c: shutil.rmtree(c / STEP / "state"),
        "no finished checkpoint found in it\n.*metadata, but no state/"),
    "no step leaf": (GDA, lambda c: shutil.rmtree(c / STEP / "state" / "step"),
        "step: no such leaf"),
    "missing manifest": (OCDBT, lambda c: (c / STEP / "state" / "manifest.ocdbt").unlink(),
        "manifest.ocdbt is missing"),
    "bit flip in the manifest": (OCDBT, lambda c: flip(c / STEP / "state" / "manifest.ocdbt", 20),
        "manifest.ocdbt"),
    "truncated data of the database": (OCDBT, lambda c: halve_largest(c / STEP / "state"),
        r"state"),
    "key that leads out": (OCDBT, lead_out,
        r"'\.\./\.\./\.\./evil' .*lead out of the directory"),
    "tampered placeholder": (OCDBT, name_another,
        "the placeholder at mdl_vars.params.lm.final_ln.scale names 'mdl_vars.params.lm.final_ln."),
    "truncated msgpack": (FLAX, lambda c: halve(state(c) / "checkpoint"),
        "not a whole flax msgpack file: .*truncated"),
    "corrupt msgpack": (FLAX, lambda c: (state(c) / "checkpoint").write_bytes(b"\xc1" * 64),
        "not a whole flax msgpack file|no checkpoint found"),
    "leaf too few": (FLAX, drop_leaf,
        "flattened_state has 130 leaves, but str_pytree_state names 131"),
}  # fmt: skip
# fmt: on


def refused(source: Path, tmp_path: Path, *options: str) -> str:
    """The message of a conversion that must fail, and must leave nothing behind."""
    place = tmp_path / "place"
    place.mkdir()
    result = CliRunner().invoke(convert, [str(source), str(place / "out"), *options])
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert "Traceback" not in result.stderr
    assert not (place / "out").exists()
    return result.stderr


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_checkpoint(case: str, editable: Editable, tmp_path: Path):
    name, damage, message = DAMAGE[case]
    checkpoint = editable(name)
    damage(checkpoint)
    said = refused(checkpoint, tmp_path, *BETAS)
    assert re.search(message, said), said
    assert str(checkpoint) in said
    assert list((tmp_path / "place").iterdir()) == [], "what is damaged is of no use for --resume"


# fmt: off
USABLE = {
    # case: (recording, what is done to its checkpoint/, what the note says)
    "no metadata": (GDA, lambda c: shutil.rmtree(c / STEP / "metadata"),
        "note: no metadata/ directory: shapes are taken as they are on disk"),
    "another step in the name": (GDA, lambda c: (c / STEP).rename(c / "checkpoint_00000009"),
        "note: the directory's name says step 9, its step leaf says 4"),
    "half-written newer step": (GDA,
        lambda c: (c / "checkpoint_00000006.orbax-checkpoint-tmp-17953").mkdir(),
        "note: ignored .*checkpoint_00000006.orbax-checkpoint-tmp-17953: unfinished"),
    "no _METADATA": (OCDBT, lambda c: (c / STEP / "state" / "_METADATA").unlink(),
        "note: no _METADATA: the tree was taken from checkpoint"),
    "digits only": (GDA, lambda c: (c / STEP).rename(c / "4"),
        "checkpoint/4: .*step 4"),
    "mixed widths": (GDA, lambda c: shutil.copytree(c / STEP, c / "checkpoint_10"),
        r"checkpoint/checkpoint_10: "),
}  # fmt: skip
# fmt: on


@pytest.mark.parametrize("case", USABLE)
def test_odd_checkpoint_converts_and_says_what_is_odd(
    case: str, editable: Editable, tmp_path: Path
):
    name, change, note = USABLE[case]
    checkpoint = editable(name)
    change(checkpoint)
    out = tmp_path / "out"
    result = CliRunner().invoke(convert, [str(checkpoint), str(out), *BETAS])
    assert result.exit_code == 0, result.output
    assert re.search(note, result.stdout), result.stdout
    notes = json.loads((out / "manifest.json").read_text())["notes"]
    if note.startswith("note: "):
        assert any(re.search(note.removeprefix("note: "), line) for line in notes)


class Evil:
    """An object whose pickle makes a directory when it is loaded."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple:
        return (os.mkdir, (str(self.place),))


def foreign_orbax(place: Path) -> None:
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(place, {"model": {"w": np.ones((2, 2), np.float32)}})


def pickled(place: Path) -> None:
    place.write_bytes(pickle.dumps(Evil(place.with_name("ran"))))


# fmt: off
FOREIGN = {
    # case: (what is made at a path, what the message says)
    "missing": (lambda p: None, "no such file or directory"),
    "empty directory": (lambda p: p.mkdir(), "an empty directory"),
    "empty file": (lambda p: p.write_bytes(b""), "source: "),
    "Orbax checkpoint of something else": (foreign_orbax, "an Orbax checkpoint of something else"),
    "pickle that runs code": (pickled, "no checkpoint found: |not a .*msgpack"),
    "text": (lambda p: p.write_text("hello, this is no checkpoint"), "source: "),
    "other files": (lambda p: (p / "a" / "b").mkdir(parents=True), "no checkpoint found: it holds"),
}  # fmt: skip
# fmt: on


@pytest.mark.parametrize("case", FOREIGN)
def test_what_is_no_checkpoint(case: str, tmp_path: Path):
    make, message = FOREIGN[case]
    source = tmp_path / "source"
    make(source)
    said = refused(source, tmp_path, *BETAS)
    assert re.search(message, said), said
    assert str(source) in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "ran").exists()
    assert list((tmp_path / "place").iterdir()) == []


def test_betas_that_nobody_gives_are_no_guess(editable: Editable, tmp_path: Path):
    result = CliRunner().invoke(convert, [str(editable(GDA)), str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "'adam_bias_corrected'): beta1 and beta2 are not known" in result.stdout
    assert "--set beta1=... --set beta2=..." in result.stdout
