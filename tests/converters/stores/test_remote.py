"""Conversions from and to object stores give the same as on a local disk."""

import itertools
import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from converters import CheckpointError, ConvertOptions, OutputError, PlanOptions, convert
from converters.paxml.checkpoint import open_checkpoint
from converters.stores.kvstore import KvStore
from converters.stores.protocol import StorageError
from tests import running
from tests.converters import stored, synthetic
from tests.converters.stores.servers import ObjectStore

COMMIT = "commit_success.txt"
PLAN = PlanOptions(overrides={"beta1": 0.9, "beta2": 0.99})
OPTIONS = ConvertOptions(PLAN)
TIMES = re.compile(rb'"(init|commit)_timestamp_nsecs": \d+')


@pytest.fixture(params=["LlamaSgdm_ocdbt", "GptLearned_gda", "LlamaWeightsOnly_flax"])
def checkpoint(request: pytest.FixtureRequest, recording: Callable[[str], Path]) -> Path:
    """A recorded `checkpoints/` folder of each layout."""
    return recording(request.param) / "checkpoint"


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small job with 24 leaves that are large enough to be finished one by one."""
    params = synthetic.random_params(count=8, rows=130, columns=130)
    return synthetic.write_job(tmp_path_factory.mktemp("remote") / "job", params)


def upload(directory: Path, remote: ObjectStore, url: str, commit: bool = True) -> str:
    """Copy a job or a `checkpoints/` folder; each step gets its mark if `commit`."""
    steps: set[Path] = set()
    for file in directory.rglob("*"):
        if file.is_file():
            remote.put(f"{url}/{file.relative_to(directory)}", file.read_bytes())
            steps |= {above for above in file.parents if above.name.startswith("checkpoint_")}
    for step in steps if commit else ():
        remote.put(f"{url}/{step.relative_to(directory)}/{COMMIT}", b"")
    return url


def files(directory: Path) -> dict[str, bytes]:
    found = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


def content(found: dict[str, bytes]) -> dict[str, object]:
    """Files of an output, without what differs between runs."""
    leaves = json.loads(found["manifest.json"])["leaves"]
    rest = {name: TIMES.sub(b"", data) for name, data in found.items()}
    return rest | {"manifest.json": leaves, COMMIT: None}


def test_between_any_two_places(checkpoint: Path, remote: ObjectStore, tmp_path: Path):
    convert(checkpoint, tmp_path / "local", OPTIONS)
    wanted = content(files(tmp_path / "local"))
    bucket = remote.bucket()
    source = upload(checkpoint, remote, f"{bucket}/some job/checkpoints")
    upload(checkpoint.parent / "job_files", remote, f"{bucket}/some job/job_files")
    report = convert(checkpoint, f"{bucket}/to", OPTIONS)
    assert report.output == f"{bucket}/to"
    assert content(remote.objects(f"{bucket}/to")) == wanted
    assert COMMIT in remote.objects(f"{bucket}/to")
    convert(source, tmp_path / "from", OPTIONS)
    assert content(files(tmp_path / "from")) == wanted
    convert(source.removesuffix("/checkpoints"), f"{bucket}/out/both/", OPTIONS)
    assert content(remote.objects(f"{bucket}/out/both")) == wanted
    (step,) = {key.partition("/")[0] for key in remote.objects(source)}
    found = open_checkpoint(f"{source}/{step}")
    assert found.url == f"{source}/{step}"
    local = open_checkpoint(checkpoint)
    assert [leaf.spec for leaf in found.leaves.values()] == [
        leaf.spec for leaf in local.leaves.values()
    ]


def test_what_is_written_loads(job: Path, remote: ObjectStore, tmp_path: Path):
    """From a copy: Orbax takes `s3://` for a local path, and needs gcsfs for `gs://`."""
    from efficientids_flax.stored.load import load_converted

    url = f"{remote.bucket()}/out"
    convert(job, url, OPTIONS)
    convert(job, tmp_path / "local", OPTIONS)
    for name, data in remote.objects(url).items():
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / name).write_bytes(data)
    copy = stored.read_output(tmp_path / "copy")
    local = stored.read_output(tmp_path / "local")
    assert copy.keys() == local.keys()
    assert all((copy[path] == local[path]).all() for path in local)
    assert load_converted(tmp_path / "copy").config == load_converted(tmp_path / "local").config


def test_zarr3_is_read(remote: ObjectStore, tmp_path: Path):
    """TensorStore itself reads these arrays, so it has to reach the bucket too."""
    import numpy as np
    import tensorstore as ts

    values = np.arange(60, dtype=np.float32).reshape(6, 10)
    state = tmp_path / "checkpoint_00000003/state"
    for name, array in {"step": np.uint32(3), "mdl_vars.params.w": values}.items():
        store = {"driver": "file", "path": f"{state / name}/"}
        ts.open(
            {"driver": "zarr3", "kvstore": store},
            create=True, dtype=array.dtype, shape=array.shape,
        ).result().write(array).result()  # fmt: skip
    url = upload(tmp_path, remote, f"{remote.bucket()}/job/checkpoints")
    leaves = open_checkpoint(url).leaves
    assert (leaves["mdl_vars/params/w"].read() == values).all()


def test_a_step_without_its_mark_is_not_taken(job: Path, remote: ObjectStore):
    bucket = remote.bucket()
    url = upload(job, remote, f"{bucket}/job", commit=False)
    with pytest.raises(CheckpointError, match=rf"checkpoint_00000007.*: it has no {COMMIT}"):
        convert(url, f"{bucket}/out", OPTIONS)
    assert not remote.objects(f"{bucket}/out")
    step = "checkpoints/checkpoint_00000007"
    upload(job / step, remote, f"{url}/checkpoints/checkpoint_00000005")
    remote.put(f"{url}/checkpoints/checkpoint_00000005/{COMMIT}", b"")
    found = open_checkpoint(url)
    assert found.url == f"{url}/checkpoints/checkpoint_00000005"
    assert any(f"ignored {url}/{step}: unfinished" in note for note in found.notes)


def test_an_existing_output_is_replaced_on_demand_only(job: Path, remote: ObjectStore):
    url = f"{remote.bucket()}/out"
    convert(job, url, OPTIONS)
    before = remote.objects(url)
    with pytest.raises(OutputError, match=f"{url} exists; give --overwrite to replace it"):
        convert(job, url, OPTIONS)
    assert remote.objects(url) == before
    plan = PlanOptions(optimizer="none")
    convert(job, url, ConvertOptions(plan, overwrite=True))
    after = remote.objects(url)
    assert after.keys() < before.keys() and COMMIT in after
    assert not any(name.startswith("state/optimizer.") for name in after)


def test_what_is_not_ours_is_left_alone(job: Path, remote: ObjectStore):
    url = f"{remote.bucket()}/data"
    remote.put(f"{url}/precious/file", b"x")
    for options in (
        OPTIONS,
        ConvertOptions(PLAN, overwrite=True),
        ConvertOptions(PLAN, resume=True),
    ):
        with pytest.raises(OutputError, match=f"{url} exists and holds precious/"):
            convert(job, url, options)
    assert remote.objects(url) == {"precious/file": b"x"}


def test_mark_goes_first_when_an_output_is_removed(
    job: Path, remote: ObjectStore, monkeypatch: pytest.MonkeyPatch
):
    url = f"{remote.bucket()}/out"
    convert(job, url, OPTIONS)
    original = KvStore._delete

    def delete(self: KvStore, prefix: str, keys: list[str]) -> None:
        original(self, prefix, keys)
        if any(key.endswith(f"out/{COMMIT}") for key in keys):
            raise StorageError("killed")

    monkeypatch.setattr(KvStore, "_delete", delete)
    with pytest.raises(StorageError, match="killed"):
        convert(job, url, ConvertOptions(PLAN, overwrite=True))
    left = remote.objects(url)
    assert COMMIT not in left and "manifest.json" in left
    monkeypatch.undo()


def test_lost_connection_then_resumed(
    job: Path, remote: ObjectStore, monkeypatch: pytest.MonkeyPatch
):
    url = f"{remote.bucket()}/out"
    original, counter = KvStore.write, itertools.count()

    def write(self: KvStore, key: str, data: bytes) -> None:
        if next(counter) == 40:
            raise StorageError(f"{self.url}/{key}: cannot write: no answer")
        original(self, key, data)

    with monkeypatch.context() as patch:
        patch.setattr(KvStore, "write", write)
        with pytest.raises(StorageError, match=f"{url}/.*: cannot write: no answer"):
            convert(job, url, ConvertOptions(PLAN, workers=1))
    begun = remote.objects(url)
    assert COMMIT not in begun and "manifest.json" not in begun
    with pytest.raises(OutputError, match="made from another checkpoint or with other options"):
        convert(job, url, ConvertOptions(PlanOptions(optimizer="raw"), resume=True))
    convert(job, url, ConvertOptions(PLAN, resume=True))
    done = remote.objects(url)
    assert COMMIT in done and not any(name.startswith("_journal") for name in done)
    convert(job, f"{url}-2", OPTIONS)
    assert content(done) == content(remote.objects(f"{url}-2"))


def test_killed_then_resumed(job: Path, remote: ObjectStore):
    url = f"{remote.bucket()}/out"
    for wanted in (3, 9, 15):
        command = synthetic.command(
            job, url, *synthetic.ADAM, "--resume", "--workers", "1", "--quiet"
        )
        with running.running(command, env=synthetic.environment()) as process:
            while process.poll() is None and len(list(entries(remote, url))) < wanted:
                assert COMMIT not in remote.objects(url)
                time.sleep(0.002)
        assert process.returncode == -signal.SIGKILL
        assert COMMIT not in remote.objects(url)
    kept = set(entries(remote, url))
    assert len(kept) >= 15
    convert(job, url, ConvertOptions(PLAN, resume=True))
    convert(job, f"{url}-2", OPTIONS)
    assert content(remote.objects(url)) == content(remote.objects(f"{url}-2"))


def entries(remote: ObjectStore, url: str) -> Iterator[str]:
    """Entries of the journal of an unfinished output."""
    return (name for name in remote.objects(url) if name.startswith("_journal/job-"))
