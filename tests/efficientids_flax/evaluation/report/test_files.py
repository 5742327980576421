"""The report's files: JSON that says what was measured, and a page with the same figures."""

import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from efficientids_flax.evaluation import EvaluationOptions, evaluate_lists, write_report

USERS, ITEMS = 30, 12


@pytest.fixture(scope="module")
def found():
    rng = np.random.default_rng(0)
    lists = np.array([rng.permutation(ITEMS)[:5] for _ in range(USERS)])
    held_out = [rng.integers(0, ITEMS, 2).tolist() for _ in range(USERS)]
    histories = [rng.integers(0, ITEMS, n).tolist() for n in rng.integers(1, 9, USERS)]
    options = EvaluationOptions(cutoffs=(1, 5), resamples=50)
    return evaluate_lists(
        lists, held_out, ITEMS, options, histories=histories, counts=np.arange(ITEMS)
    )


def test_the_json_has_it_all(found, tmp_path):
    path, _ = write_report(tmp_path / "new" / "one", found, {"model": "<b> & co", "split": "test"})
    read = json.loads(path.read_text())
    assert (read["format"], read["version"]) == ("efficientids-evaluation", 1)
    assert read["users"] == read["questions"] == USERS
    for name, one in found.metrics.items():
        assert read["metrics"][name] == pytest.approx(one._asdict())
    assert read["catalogue"] == pytest.approx(dict(found.catalogue))
    assert [part["name"] for part in read["segments"]] == [part.name for part in found.segments]
    by_length = [part["users"] for part in read["segments"] if part["by"] == "history"]
    assert sum(by_length) == USERS
    curve = read["lorenz_curve"]
    assert (curve[0], curve[-1]) == (0.0, 1.0)
    assert (np.diff(curve, 2) > -1e-9).all()  # convex
    assert sum(read["first_hits"]) <= USERS
    assert read["ranking"]["equal_scores"] == "the lower item number first"


def test_the_page_needs_nothing_else(found, tmp_path):
    _, path = write_report(tmp_path, found, {"model": "<b> & co"})
    text = path.read_text()
    assert not re.search(r"""(src|href)=|@import|url\(|<script|<link""", text)
    assert "&lt;b&gt; &amp; co" in text
    charts = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(charts) == 4
    for chart in charts:
        ElementTree.fromstring(chart)
    assert f"{found.metrics['ndcg_at_5'].value:.4f}" in text
    assert "cold items" in text
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.html", "report.json"]


def test_what_is_not_known_is_null(tmp_path):
    lists = np.array([[1, 2]])
    found = evaluate_lists(lists, [[1]], 4, EvaluationOptions(cutoffs=(1,)), counts=np.ones(4))
    path, page = write_report(tmp_path, found)
    read = json.loads(path.read_text())
    assert read["metrics"]["recall_at_1"] == {"value": 1.0, "low": None, "high": None}
    cold = next(part for part in read["segments"] if part["name"] == "cold items")
    assert (cold["users"], cold["metrics"]["recall_at_1"]["value"]) == (0, None)
    assert "nan" not in page.read_text().lower().replace("nancy", "")
