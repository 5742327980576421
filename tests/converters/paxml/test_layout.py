import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from converters.errors import CheckpointError, ConversionError
from converters.paxml import layout
from converters.paxml.checkpoint import open_checkpoint
from converters.paxml.layout import locate
from converters.paxml.sources import listing
from converters.stores import LocalStore, Store
from tests import paxml_states as states

ARRAYS = states.adam_state(a=np.ones(3, np.float32))
TMP = "checkpoint_00000006.orbax-checkpoint-tmp-1795313399999999"


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job with steps 0, 2, 4 and 10, in names of mixed width, and with PAXml's leftovers."""
    job = tmp_path / "job"
    for name in (
        "checkpoint_00000000",
        "checkpoint_00000002",
        "checkpoint_00000004",
        "checkpoint_10",
    ):
        states.write_zarr(job / "checkpoints" / name / "state", ARRAYS)
        states.write_metadata(job / "checkpoints" / name, 1.1, ARRAYS)
    (job / "summaries" / "train").mkdir(parents=True)
    (job / "model_params.txt").write_text("model.vocab_size : 96\n")
    return job


@pytest.mark.parametrize("inside", ["", "checkpoints", "checkpoints/"])
def test_newest_step_by_number(inside: str, job: Path) -> None:
    place = locate(f"{job}/{inside}")
    assert place.number == 10
    assert place.url == f"{job}/checkpoints/checkpoint_10"


@pytest.mark.parametrize("inside", ["", "/state", "/"])
def test_a_step_or_its_state(inside: str, job: Path) -> None:
    place = locate(f"{job}/checkpoints/checkpoint_00000002{inside}")
    assert (place.number, place.kind, place.state) == (2, "zarr", "state")
    assert place.url == f"{job}/checkpoints/checkpoint_00000002"


def test_wanted_step(job: Path) -> None:
    assert locate(job, step=0).number == 0
    with pytest.raises(CheckpointError, match="no step 3; there are 0, 2, 4, 10"):
        locate(job, step=3)
    with pytest.raises(CheckpointError, match="this is step 2, not 4"):
        locate(job / "checkpoints" / "checkpoint_00000002", step=4)


def test_digits_only(job: Path) -> None:
    (job / "checkpoints" / "checkpoint_10").rename(job / "checkpoints" / "12")
    assert locate(job).number == 12


def test_the_same_step_twice(job: Path) -> None:
    shutil.copytree(
        job / "checkpoints" / "checkpoint_10", job / "checkpoints" / "checkpoint_00000010"
    )
    with pytest.raises(
        CheckpointError, match="checkpoint_00000010/ and checkpoint_10/ are both step 10"
    ):
        locate(job)
    assert locate(job, step=4).number == 4


@pytest.mark.parametrize(
    "name", [TMP, "checkpoint_00000012.orbax-checkpoint-tmp-1", "tmp_1670000000.checkpoint_12"]
)
def test_unfinished_steps_are_named_and_passed_over(name: str, job: Path) -> None:
    shutil.copytree(job / "checkpoints" / "checkpoint_10", job / "checkpoints" / name)
    place = locate(job)
    assert place.number == 10
    assert place.notes == (f"ignored {job}/checkpoints/{name}: unfinished",)
    with pytest.raises(CheckpointError, match="unfinished: PAXml writes into such a directory"):
        locate(job / "checkpoints" / name)
    with pytest.raises(CheckpointError, match="unfinished: PAXml writes into such a directory"):
        locate(job / "checkpoints" / name / "state")


def test_only_unfinished_steps(tmp_path: Path) -> None:
    states.write_zarr(tmp_path / TMP / "state", ARRAYS)
    with pytest.raises(CheckpointError, match=rf"no finished checkpoint(.|\n)*{TMP}: unfinished"):
        locate(tmp_path)


@pytest.mark.parametrize("left", ["state.orbax-checkpoint-tmp-17", "metadata", None])
def test_steps_without_a_whole_state_are_passed_over(left: str | None, job: Path) -> None:
    step = job / "checkpoints" / "checkpoint_00000020"
    step.mkdir()
    if left:
        (step / left).mkdir()
    place = locate(job)
    assert place.number == 10
    assert len(place.notes) == 1
    assert place.notes[0].startswith(f"ignored {step}: ")
    with pytest.raises(
        CheckpointError, match=r"checkpoint_00000020: (unfinished|an empty directory)"
    ):
        locate(job, step=20)


def test_flat_file_and_directory_forms_of_flax(tmp_path: Path) -> None:
    treedef = "PyTreeDef(CustomNode(TrainState[()], [*, {'params': {'a': *}}, [], ()]))"
    leaves = [states.packed(np.array(7, np.uint32)), states.packed(np.ones(2, np.float32))]
    forms = {
        "flat": "checkpoint_7",  # version 0.0
        "directory": "checkpoint_7/checkpoint",  # version 0.0 of a later release
        "item": "checkpoint_7/state/checkpoint",  # version 1.0 and 1.1
    }
    for name, file in forms.items():
        states.write_flax(tmp_path / name / file, leaves, treedef)
        for given in (name, f"{name}/checkpoint_7", f"{name}/{file}"):
            checkpoint = open_checkpoint(tmp_path / given)
            assert checkpoint.step == 7
            assert list(checkpoint.leaves) == ["step", "mdl_vars/params/a"]
            assert checkpoint.url == f"{tmp_path}/{name}/checkpoint_7"


def test_files_of_a_state_lead_to_its_step(recording: Callable[[str], Path]) -> None:
    step = recording("LlamaGqa_ocdbt") / "checkpoint" / "checkpoint_00000004"
    for name in ("manifest.ocdbt", "_METADATA", "checkpoint"):
        assert locate(step / "state" / name).url == str(step)


@pytest.mark.parametrize(
    ("inside", "text"),
    [
        ("nothing", "no such file or directory"),
        ("summaries", "no checkpoint found: it holds train/; expected a PAXml job"),
        ("summaries/train", "an empty directory"),
        ("model_params.txt", r"model_params.txt is not msgpack \(first byte 0x6d\)"),
        ("checkpoints/checkpoint_10/metadata", "give the directory above it"),
        ("checkpoints/checkpoint_10/metadata/metadata", "give its step directory"),
        (
            "checkpoints/checkpoint_10/state/step",
            "one array of a checkpoint; give its step directory",
        ),
        ("checkpoints/checkpoint_10/state/step/.zarray", "give its step directory"),
    ],
)
def test_other_places_get_a_hint(inside: str, text: str, job: Path) -> None:
    with pytest.raises(CheckpointError, match=text):
        locate(job / inside)


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("model.npz", b"PK\x03\x04", "a zip archive"),
        ("table.npy", b"\x93NUMPY", "a NumPy array"),
        ("clustering.pkl", b"\x80\x04", "a pickle"),
        ("job.tar.gz", b"\x1f\x8b", "a gzip archive; unpack it first"),
        ("config.json", b"{}", "JSON"),
        ("empty", b"", "an empty file"),
    ],
)
def test_other_files_are_named(name: str, data: bytes, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=f"no checkpoint found: .*{text}"):
        locate(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("saved_model.pb", "TensorFlow SavedModel"),
        ("model.data-00000-of-00001", "TensorFlow checkpoint"),
        ("model-00001-of-00002.safetensors", "safetensors model"),
        ("pytorch_model.bin", "PyTorch"),
        ("_CHECKPOINT_METADATA", "Orbax"),
    ],
)
def test_other_formats_are_named(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=text):
        locate(tmp_path)


@pytest.mark.filterwarnings("ignore")  # Orbax's own
def test_orbax_checkpoint_of_something_else(tmp_path: Path) -> None:
    import orbax.checkpoint as ocp

    tree = {"encoder": {"w": np.ones(3)}, "decoder": {"w": np.ones(3)}}
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "7", tree)
    text = "an Orbax checkpoint of something else: its top-level keys are decoder, encoder; PAXml's"
    with pytest.raises(CheckpointError, match=text):
        open_checkpoint(tmp_path / "7")
    with pytest.raises(CheckpointError, match=text):
        open_checkpoint(tmp_path)


class RemoteDirectory(LocalStore):
    """A local directory that behaves as an object store: whole listings only, nothing renamed."""

    is_object_store = True

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.url = f"s3:/{root}"

    def local_path(self, key: str = "") -> None:  # type: ignore[override]
        del key

    def children(self, prefix: str = "") -> list[str]:
        raise AssertionError(f"{prefix}: each call would list all keys below")

    def keys(self, prefix: str = "") -> list[str]:
        files = (path for path in self._path(prefix).rglob("*") if path.is_file())
        return sorted(str(path.relative_to(self.root)) for path in files)

    def child(self, prefix: str) -> "RemoteDirectory":
        return RemoteDirectory(self._path(prefix))


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], str]:
    """Let `s3:/PATH` stand for the directory PATH."""

    def open_remote(url: str) -> Store:
        return RemoteDirectory(Path(url.removeprefix("s3:/")))

    for module in (layout, listing):
        monkeypatch.setattr(module, "open_store", open_remote)
    return lambda path: f"s3:/{path}"


def test_object_stores_need_the_commit_file(job: Path, remote: Callable[[Path], str]) -> None:
    for number in ("00000002", "00000004"):
        (job / "checkpoints" / f"checkpoint_{number}" / "commit_success.txt").touch()
    checkpoint = open_checkpoint(remote(job))
    assert checkpoint.url == f"s3:/{job}/checkpoints/checkpoint_00000004"
    assert checkpoint.leaves["mdl_vars/params/a"].read().tolist() == [1, 1, 1]
    assert len(checkpoint.notes) == 1
    assert "checkpoint_10: unfinished: it has no commit_success.txt" in checkpoint.notes[0]
    with pytest.raises(CheckpointError, match="it has no commit_success"):
        open_checkpoint(remote(job), step=10)
    with pytest.raises(CheckpointError, match="it has no commit_success"):
        open_checkpoint(remote(job / "checkpoints" / "checkpoint_10" / "state"))


def test_flat_file_on_an_object_store(tmp_path: Path, remote: Callable[[Path], str]) -> None:
    treedef = "PyTreeDef(CustomNode(TrainState[()], [*, {'params': {'a': *}}, [], ()]))"
    leaves = [states.packed(np.array(7, np.uint32)), states.packed(np.ones(2, np.float32))]
    states.write_flax(tmp_path / "checkpoint_7", leaves, treedef)
    assert open_checkpoint(remote(tmp_path)).step == 7
    assert open_checkpoint(remote(tmp_path / "checkpoint_7")).step == 7
    with pytest.raises(ConversionError, match="no such file or directory"):
        open_checkpoint(remote(tmp_path / "checkpoint_8"))
