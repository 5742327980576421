"""Metrics of lists against their definitions in plain Python, scikit-learn, and closed forms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score

from efficientids_flax.core.metrics import ranking_sums_of_ranks
from efficientids_flax.evaluation import METRICS, list_metrics
from parity_tests.cases import OUTPUTS
from tests.efficientids_flax.core.lists import places_in

ROWS, LONGEST, WANTED, ITEMS, CUTOFFS = 6, 8, 4, 20, (1, 3, 8)


def by_definition(top, held_out, cutoff):
    """As the docstring of the module writes it down, item by item."""
    wanted = {item for item in held_out if item >= 0}
    if not wanted:
        return dict.fromkeys(METRICS, math.nan)
    hits, seen = [], set()
    for item in top[:cutoff]:
        hits.append(item in wanted and item not in seen)
        seen.add(item)
    places = [place for place, hit in enumerate(hits, 1) if hit]
    best = min(cutoff, len(wanted))
    return {
        "hit_rate": float(bool(places)),
        "recall": len(places) / len(wanted),
        "mrr": 1 / places[0] if places else 0.0,
        "ndcg": sum(1 / math.log2(place + 1) for place in places)
        / sum(1 / math.log2(place + 1) for place in range(1, best + 1)),
        "map": sum((number + 1) / place for number, place in enumerate(places)) / best,
    }


def rows(width, low, high):
    each = st.lists(st.integers(low, high), min_size=width, max_size=width)
    return st.lists(each, min_size=ROWS, max_size=ROWS).map(lambda x: np.array(x, np.int32))


# Items that stand twice in a list or among the held-out ones, that are beyond the catalogue, fewer
# than there is room for, and none at all.
@given(rows(LONGEST, -1, ITEMS), rows(WANTED, -2, ITEMS + 5))
@settings(max_examples=60, deadline=None)
def test_is_what_the_definitions_say(top, held_out):
    found = jax.device_get(list_metrics(top, held_out, CUTOFFS))
    assert tuple(found) == tuple(sorted(METRICS))
    for row in range(ROWS):
        for place, cutoff in enumerate(CUTOFFS):
            wanted = by_definition(top[row].tolist(), held_out[row].tolist(), cutoff)
            for name, value in wanted.items():
                got = float(found[name][row, place])
                # A float32 sum of at most eight terms.
                assert got == pytest.approx(value, rel=1e-6, nan_ok=True), (name, row, cutoff)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_is_what_scikit_learn_computes(seed):
    """Of scores without ties, over the whole catalogue: no cutoff for its average precision."""
    rng = np.random.default_rng(seed)
    scores = rng.permuted(np.tile(np.arange(ITEMS, dtype=float), (ROWS, 1)), axis=1)
    relevant = rng.random((ROWS, ITEMS)) < 0.2
    relevant[:, 0] |= ~relevant.any(axis=1)
    top = np.argsort(-scores, axis=1).astype(np.int32)
    held_out = np.where(relevant, np.arange(ITEMS), -1).astype(np.int32)
    found = jax.device_get(list_metrics(top, held_out, (5, ITEMS)))
    for place, cutoff in enumerate((5, ITEMS)):
        wanted = ndcg_score(relevant, scores, k=cutoff)
        assert float(np.mean(found["ndcg"][:, place])) == pytest.approx(wanted, rel=1e-6)
    for row in range(ROWS):
        wanted = average_precision_score(relevant[row], scores[row])
        assert float(found["map"][row, 1]) == pytest.approx(wanted, rel=1e-6)


def test_several_held_out_items_by_hand():
    # Held out are 7, 3 and 9; found at the places 1 and 3 of 4.
    found = list_metrics(np.array([[3, 1, 7, 2]]), np.array([[7, 3, 9, 3]]), (4,))
    found = jax.device_get(found)
    ideal = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    wanted = {
        "hit_rate": 1.0, "recall": 2 / 3, "mrr": 1.0, "ndcg": (1 + 1 / math.log2(4)) / ideal,
        "map": (1 / 1 + 2 / 3) / 3,
    }  # fmt: skip
    assert {name: float(value[0, 0]) for name, value in found.items()} == pytest.approx(wanted)


@pytest.mark.parametrize("name", ["b_everywhere", "k_adam"])
def test_of_one_item_it_is_what_the_original_reports(name):
    with np.load(OUTPUTS / name / "arrays.npz") as file:
        best = file["passes/eval/outputs/top10_indices"] - 128  # words
        labels, weights = file["inputs/labels"], file["inputs/label_item_weights"]
        reported = {
            key.split("/")[3]: float(file[key])
            for key in file.files
            if key.startswith("passes/eval/metrics/") and key.endswith("/value")
        }
    there = weights > 0
    found = jax.device_get(list_metrics(best[there], labels[there][:, None], (1, 5, 10)))
    sums = jax.jit(ranking_sums_of_ranks)(places_in(best, labels), weights)
    sums = jax.device_get(sums.compute())
    for place, cutoff in enumerate((1, 5, 10)):
        means = {metric: float(np.mean(value[:, place])) for metric, value in found.items()}
        assert means["hit_rate"] == means["recall"]
        assert means["map"] == pytest.approx(means["mrr"], rel=1e-6)
        for metric in ("recall", "mrr", "ndcg"):
            wanted = reported[f"{metric}_at_{cutoff}"]
            assert means[metric] == pytest.approx(wanted, rel=3e-6), (metric, cutoff)
            again = float(sums[f"{metric}_at_{cutoff}"])
            assert means[metric] == pytest.approx(again, rel=3e-6)


def test_what_does_not_fit_is_named():
    top, held_out = jnp.zeros((2, 3), int), jnp.zeros((2, 1), int)
    for cutoffs in ((), (0,), (4,)):
        with pytest.raises(ValueError, match=r"cutoffs: expected whole numbers in \[1, 3\]"):
            list_metrics(top, held_out, cutoffs)
    with pytest.raises(ValueError, match=r"found \[2, 3\] and \[1, 1\], expected \[B, k\]"):
        list_metrics(top, held_out[:1], (1,))
