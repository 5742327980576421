"""A small recommender with a catalogue, served in this process for all tests of a run."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from converters import convert_paxml_checkpoint
from efficientids_flax.core.clustering.tables import ClusteringInfo
from tests.efficientids_flax.serve.serving import ITEMS, Served, settings_for


@pytest.fixture(scope="session")
def model(recording: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A converted recommender with its clustering and the ids and titles of its items."""
    case, out = recording("b_everywhere"), tmp_path_factory.mktemp("serve") / "model"
    convert_paxml_checkpoint(case / "checkpoint", out, optimizer="none")
    ClusteringInfo.from_pickle(case / "clustering.pkl").save(out / "clustering.npz")
    rows = ({"id": f"tt{row:03d}", "title": f"Title <{row}> é"} for row in range(ITEMS))
    (out / "items.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return out


@pytest.fixture(scope="session")
def served(model: Path) -> Iterator[Served]:
    """Ready to answer; tests leave its sets as they were."""
    with Served(settings_for(model)) as made:
        yield made
