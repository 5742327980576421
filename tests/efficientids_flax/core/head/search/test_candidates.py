"""Scores of items that are named are those of their definition, in float64."""

import jax
import numpy as np
import pytest

from efficientids_flax.core.head.search import Kind, build_index, score
from tests.efficientids_flax.core.head.search.test_find import ASKED, ITEMS, problem, wanted

SCORE = jax.jit(score, static_argnames=("kind", "soft_cap"))
TOLERANCE = 2e-6  # of float32 sums of four products and a logsumexp


@pytest.mark.parametrize(
    ("kind", "cap"), [("scores", None), ("corrected", 3.0), ("log_probs", 3.0)]
)
def test_scores_of_candidates(kind: Kind, cap: float | None):
    given = problem(0, grid=False)
    index = build_index(given["items"], given["clusters"], given["clustering"])
    ids = np.random.default_rng(1).integers(0, ITEMS, (ASKED, 6))
    ids[0, 1], ids[1, 4] = -1, ITEMS  # no items
    words = kind == "log_probs"
    found = SCORE(
        index, given["query"], ids, kind=kind, soft_cap=cap,
        word_logits=given["words"] if words else None,
    )  # fmt: skip
    every = np.pad(wanted(given, kind, cap, words), ((0, 0), (0, 1)), constant_values=-np.inf)
    expected = np.take_along_axis(every, np.where(ids < 0, ITEMS, ids), axis=1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
