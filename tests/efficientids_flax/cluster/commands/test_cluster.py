"""`efficientids cluster`: what it writes, whose items it says they are, mistakes by name."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from efficientids_flax.commands.program import main
from efficientids_flax.core.clustering import ClusteringInfo
from tests.efficientids_flax.data.directories import EVENTS, write_prepared

pytest.importorskip("sklearn")
pytest.importorskip("pyarrow")


def cluster(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["cluster", *map(str, arguments)])


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """Prepared data of ten items, whose vectors lie in two groups."""
    folder = write_prepared(tmp_path / "data")
    vectors = np.arange(10)[:, None] // 5 * 10.0 + np.random.default_rng(0).random((10, 3))
    np.save(folder / "embeddings.npy", vectors.astype(np.float32))
    return folder


def catalogue(folder: Path) -> str:
    return json.loads((folder / "manifest.json").read_text())["digests"]["catalogue"]


def test_prepared_data_get_a_clustering_that_says_whose_it_is(prepared: Path, tmp_path: Path):
    pytest.importorskip("matplotlib")
    done = cluster("--method", "kmeans", "--clusters", 2, "--data-dir", prepared, "--json",
                   "--pickle", tmp_path / "c.pkl", "--plot", tmp_path / "c.png")  # fmt: skip
    assert done.exit_code == 0, done.output
    found = ClusteringInfo.from_file(prepared / "clustering.npz")
    assert found.catalogue == catalogue(prepared)
    assert found.cluster_of.tolist() == [0] * 5 + [1] * 5
    assert ClusteringInfo.from_pickle(tmp_path / "c.pkl").digest() == found.digest()
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    about = json.loads(done.stdout)
    assert about["clusters"] == 2
    assert about["sizes"]["histogram"] == [[5, 5, 2]]
    assert about["inertia_share"] < 0.05
    assert about["written"] == {
        "clustering": str(prepared / "clustering.npz"), "pickle": str(tmp_path / "c.pkl"),
        "plot": str(tmp_path / "c.png"),
    }  # fmt: skip


def test_ranks_by_count_are_those_of_the_training_split(prepared: Path, tmp_path: Path):
    done = cluster("--method", "frequency", "--data-dir", prepared, "--rank", "count",
                   "--clusters", 5, "--shortlist", 3, "--out", tmp_path / "c.npz")  # fmt: skip
    assert done.exit_code == 0, done.output
    trained = [item for items, splits in EVENTS
               for item, split in zip(items, splits, strict=True) if split == 0]  # fmt: skip
    counts = np.bincount(trained, minlength=10)
    order = sorted(range(10), key=lambda item: (-counts[item], item))
    found = ClusteringInfo.from_file(tmp_path / "c.npz")
    assert found.cluster_of[order].tolist() == [0, 1, 2, 3, 4, 3, 4, 3, 4, 3]


def test_embeddings_of_another_catalogue_are_refused(prepared: Path, tmp_path: Path):
    other = tmp_path / "e.npy"
    np.save(other, np.ones((10, 2), np.float32))
    other.with_suffix(".json").write_text(json.dumps({"catalogue": "another"}))
    done = cluster("--method", "random", "--data-dir", prepared, "--embeddings", other)
    assert done.exit_code == 1
    assert "another catalogue" in done.stderr
    assert not (prepared / "clustering.npz").exists()
    np.save(other, np.ones((9, 2), np.float32))
    other.with_suffix(".json").unlink()
    done = cluster("--method", "random", "--data-dir", prepared, "--embeddings", other)
    assert done.exit_code == 1
    assert "has 9 items" in done.stderr


def test_a_file_of_embeddings_hands_on_its_catalogue(tmp_path: Path):
    np.save(tmp_path / "e.npy", np.random.default_rng(0).random((9, 2)).astype(np.float32))
    (tmp_path / "e.json").write_text(json.dumps({"catalogue": "cafe"}))
    done = cluster("--method", "agglomerative", "--embeddings", tmp_path / "e.npy",
                   "--out", tmp_path / "c.safetensors")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "9 items in 3 clusters" in done.stdout
    assert ClusteringInfo.from_file(tmp_path / "c.safetensors").catalogue == "cafe"


def test_what_is_there_stays_unless_asked(tmp_path: Path):
    (tmp_path / "c.npz").write_bytes(b"mine")
    arguments = ["--method", "random", "--num-items", 5, "--out", tmp_path / "c.npz"]
    done = cluster(*arguments)
    assert done.exit_code == 1
    assert "exists already; --overwrite" in done.stderr
    assert (tmp_path / "c.npz").read_bytes() == b"mine"
    assert cluster(*arguments, "--overwrite").exit_code == 0
    assert ClusteringInfo.from_file(tmp_path / "c.npz").num_items == 5


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ("--method kmeans --out c.npz", 2, "give --embeddings, --data-dir (or both), --checkpoint"),
        ("--method kmeans --num-items 4 --out c.npz", 2, "kmeans needs vectors"),
        ("--method random --num-items 4", 2, "--out FILE is missing"),
        ("--method random --num-items 4 --out c.pkl", 2, "ends in .pkl"),
        ("--method random --num-items 4 --out c.npz --into x", 2, "--into goes with --checkpoint"),
        ("--method random --num-items 4 --rank count --out c.npz", 2, "--rank count goes with"),
        ("--method other --num-items 4 --out c.npz", 2, "'other' is not one of"),
        ("--method random --num-items 4 --out absent/c.npz", 1, "absent: no such directory"),
        ("--method kmeans --embeddings absent.npy --out c.npz", 1, "absent.npy: no such file"),
        ("--method kmeans --checkpoint absent --out c.npz", 1, "absent"),
        ("--method random --data-dir absent", 1, "absent"),
        ("--method random --num-items 4 --clusters 9 --out c.npz", 1, "clusters: found 9"),
    ],
)  # fmt: skip
def test_mistakes_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, code: int, told: str
):
    monkeypatch.chdir(tmp_path)
    done = cluster(*arguments.split())
    assert done.exit_code == code, done.output
    assert told in done.stderr
    assert not list(tmp_path.iterdir())


def test_data_without_embeddings_say_how_to_make_them(tmp_path: Path):
    folder = write_prepared(tmp_path / "data")
    done = cluster("--method", "kmeans", "--data-dir", folder)
    assert done.exit_code == 1
    assert "has no embeddings.npy, which kmeans needs; `efficientids embed`" in done.stderr
