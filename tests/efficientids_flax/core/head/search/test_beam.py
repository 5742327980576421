"""A search of a few clusters: with all of them the exact one, with fewer exact scores of theirs."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.head.search import beam as beam_module
from efficientids_flax.core.head.search import build_index, search

ITEMS, CLUSTERS, WIDTH, ASKED = 120, 6, 4, 3


@pytest.fixture(scope="module")
def problem() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    cluster_of = np.concatenate([np.arange(CLUSTERS), rng.integers(0, 3, ITEMS - CLUSTERS)])
    clustering = ClusteringInfo.from_assignments(rng.permutation(cluster_of))
    items, clusters, query = (
        rng.normal(size=shape).astype(np.float32)
        for shape in ((ITEMS, WIDTH), (CLUSTERS, WIDTH), (ASKED, WIDTH))
    )
    return {
        "index": build_index(items, clusters, clustering),
        "query": query,
        "exclude": jax.device_put(rng.integers(0, ITEMS, (ASKED, 20))),
        "cluster_of": np.asarray(clustering.cluster_of),
    }


@pytest.mark.parametrize(
    ("kind", "cap"), [("scores", None), ("corrected", 2.0), ("log_probs", 2.0)]
)
def test_by_the_exact_search(
    monkeypatch: pytest.MonkeyPatch, problem: dict[str, Any], kind: Any, cap: float | None
):
    """Several steps a query; what is left out counts in the normalisers."""
    monkeypatch.setattr(beam_module, "STEP_BYTES", 2 * 4 * 8 * WIDTH)
    index, query, exclude = (problem[name] for name in ("index", "query", "exclude"))

    @partial(jax.jit, static_argnames="clusters")
    def run(clusters: int | None = None) -> Any:
        return search(
            index, query, ITEMS, kind=kind, soft_cap=cap, exclude=exclude, clusters=clusters
        )

    exact, whole, part = jax.device_get((run(), run(clusters=CLUSTERS), run(clusters=2)))
    np.testing.assert_array_equal(whole.ids, exact.ids)
    np.testing.assert_allclose(whole.scores, exact.scores, rtol=1e-5, atol=1e-6)
    for row in range(ASKED):
        found = part.ids[row]
        found, rest = found[found >= 0], found[found < 0]
        visited = problem["cluster_of"][found]
        assert len(set(visited)) <= 2 and len(rest)
        # All of them that may be found, each with the score that it has in the exact search.
        of_all = exact.ids[row]
        kept = np.isin(problem["cluster_of"][of_all], visited) & (of_all >= 0)
        np.testing.assert_array_equal(found, of_all[kept])
        np.testing.assert_allclose(
            part.scores[row][: len(found)], exact.scores[row][kept],
            rtol=1e-5, atol=1e-6,
        )  # fmt: skip
        assert np.isneginf(part.scores[row][len(found) :]).all()


def test_refusals(problem: dict[str, Any]):
    with pytest.raises(ValueError, match=r"clusters: expected in \[1, 6\]"):
        search(problem["index"], problem["query"], 3, clusters=7)
    with pytest.raises(ValueError, match="clusters: found 1, and the model has none"):
        search(build_index(np.zeros((9, 2)), None, None), jnp.zeros((1, 2)), 3, clusters=1)
