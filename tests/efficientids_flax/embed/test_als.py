"""ALS against its optimum, by the equations of the paper, and the package `implicit`."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efficientids_flax.embed import als
from efficientids_flax.embed.als import AlsOptions, Factors, Pairs, factorize, objective


def pairs(users: int = 30, items: int = 20, events: int = 200, seed: int = 0) -> Pairs:
    rng = np.random.default_rng(seed)
    chosen = (items * rng.random(events) ** 2).astype(int)  # some often
    return Pairs.of_events(rng.integers(0, users, events), chosen, users, items)


def test_events_become_pairs_with_counts():
    found = Pairs.of_events(np.array([1, 0, 1, 1]), np.array([2, 1, 0, 2]), 2, 3)
    assert found.users.tolist() == [0, 1, 1]
    assert found.items.tolist() == [1, 0, 2]
    assert found.counts.tolist() == [1, 1, 2]


def by_the_paper(given: Pairs, others: np.ndarray, options: AlsOptions) -> np.ndarray:
    """x_u = (Y' C_u Y + reg I)^-1 Y' C_u p_u, with whole matrices."""
    preferred = np.zeros((given.num_users, given.num_items))
    preferred[given.users, given.items] = given.counts
    rows = []
    for row in preferred:
        sure = np.diag(1 + options.alpha * row)
        left = others.T @ sure @ others + options.regularization * np.eye(others.shape[1])
        rows.append(np.linalg.solve(left, others.T @ sure @ (row > 0)))
    return np.array(rows)


@pytest.mark.parametrize("room", [1 << 22, 64])  # all at once, and a few pairs at a time
def test_a_step_solves_the_papers_equations(monkeypatch: pytest.MonkeyPatch, room: int):
    monkeypatch.setattr(als, "ROOM", room)
    given, options = pairs(), AlsOptions(5, 0.3, 2.0, iterations=1, seed=3)
    start = np.random.default_rng(1).normal(size=(20, 5)).astype(np.float32)
    found = factorize(given, options, start)
    users = by_the_paper(given, start.astype(float), options)
    np.testing.assert_allclose(found.users, users, rtol=2e-4, atol=2e-5)  # float32 sums
    turned = Pairs.of_events(given.items, given.users, 20, 30)
    turned = turned._replace(counts=_counts(given, turned))
    items = by_the_paper(turned, found.users.astype(float), options)
    np.testing.assert_allclose(found.items, items, rtol=2e-4, atol=2e-5)


def _counts(given: Pairs, turned: Pairs) -> np.ndarray:
    table = {(u, i): c for u, i, c in zip(given.users, given.items, given.counts, strict=True)}
    return np.array([table[u, i] for i, u in zip(turned.users, turned.items, strict=True)])


@settings(max_examples=10)
@given(st.integers(0, 1000), st.sampled_from([0.0, 1.0, 40.0]))
def test_no_step_makes_the_objective_larger(seed: int, alpha: float):
    given = pairs(12, 8, 40, seed)
    options = AlsOptions(3, 0.1, alpha, iterations=1, seed=seed)
    items = np.random.default_rng(seed).normal(size=(8, 3)).astype(np.float32)
    before = np.inf
    for _ in range(4):
        found = factorize(given, options, items)
        now = objective(given, found, options)
        assert now <= before * (1 + 1e-5)
        before, items = now, found.items


def test_the_objective_is_that_of_all_pairs():
    given, options = pairs(6, 5, 12), AlsOptions(2, 0.5, 3.0)
    rng = np.random.default_rng(0)
    factors = Factors(*(rng.normal(size=(n, 2)).astype(np.float32) for n in (6, 5)))
    counts = np.zeros((6, 5))
    counts[given.users, given.items] = given.counts
    errors = (1 + 3 * counts) * ((counts > 0) - factors.users @ factors.items.T) ** 2
    norms = (factors.users**2).sum() + (factors.items**2).sum()
    assert objective(given, factors, options) == pytest.approx(errors.sum() + 0.5 * norms, rel=1e-5)


def test_those_in_no_pair_have_zeros():
    found = factorize(Pairs.of_events(np.array([0, 2]), np.array([1, 1]), 3, 4), AlsOptions(2))
    assert not found.users[1].any()
    assert not found.items[[0, 2, 3]].any()
    assert found.items[1].any()


def test_the_same_seed_gives_the_same_bytes():
    given = pairs()
    one, same, other = (factorize(given, AlsOptions(4, seed=seed)).items for seed in (1, 1, 2))
    assert one.tobytes() == same.tobytes()
    assert one.tobytes() != other.tobytes()


def test_implicit_comes_to_the_same_objective(monkeypatch: pytest.MonkeyPatch):
    """Its solver is approximate; after many steps both stand at about the same value."""
    pytest.importorskip("implicit")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # it warns otherwise
    given, options = pairs(60, 40, 800), AlsOptions(8, 0.1, 5.0, iterations=60)
    ours = factorize(given, options)
    theirs = factorize(given, dataclasses.replace(options, engine="implicit"))
    wanted = objective(given, theirs, options)
    assert objective(given, ours, options) == pytest.approx(wanted, rel=0.03)
    one = dataclasses.replace(options, iterations=1)
    start = theirs.items
    step = factorize(given, dataclasses.replace(one, engine="implicit"), start)
    ours_step = factorize(given, one, start)
    assert objective(given, ours_step, options) <= objective(given, step, options) * (1 + 1e-5)


@pytest.mark.parametrize(
    ("fields", "told"),
    [({"factors": 0}, "factors: expected 1 or more, found 0"),
     ({"alpha": -1.0}, "alpha: expected 0 or more"), ({"engine": "gpu"}, "engine: found 'gpu'"),
     ({"regularization": float("nan")}, "regularization: expected 0"),
     ({"alpha": float("inf")}, "alpha: .* found inf, which is not finite")],
)  # fmt: skip
def test_wrong_options_are_named(fields: dict, told: str):
    with pytest.raises(ValueError, match=told):
        AlsOptions(**fields)


@pytest.mark.parametrize("fields", [{"regularization": 0.0}, {"alpha": 1e300}])
def test_equations_without_a_solution_are_an_error(fields: dict):
    """No vector that is not finite comes out, and NumPy's words are none that help."""
    pairs = Pairs.of_events(np.array([0, 1]), np.array([0, 0]), 2, 2)
    with pytest.raises(
        ValueError, match=r"no solution in float64 with regularization .* and alpha"
    ):
        factorize(pairs, AlsOptions(factors=3, **fields))


def test_no_pairs_are_an_error():
    with pytest.raises(ValueError, match="no interactions"):
        factorize(Pairs.of_events(np.zeros(0, int), np.zeros(0, int), 0, 3), AlsOptions(2))
