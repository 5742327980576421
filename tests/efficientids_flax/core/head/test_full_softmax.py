"""A full softmax in chunks gives what one over all logits gives, values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efficientids_flax.backbone.layers import soft_cap
from efficientids_flax.core.head import computation, full_softmax
from efficientids_flax.core.head.full_softmax import Classes, chunked_cross_entropy
from efficientids_flax.core.head.second import Entropy
from efficientids_flax.losses import smoothed_cross_entropy
from tests.efficientids_flax.core.model_cases import full, head, inputs

POSITIONS, WIDTH, ITEMS, WORDS = 12, 5, 37, 6
CLOSE = {"rtol": 1e-5, "atol": 1e-6}  # sums of a few dozen float32, in another order


def classes(words: bool) -> Classes:
    rng = np.random.default_rng(0)
    query, items, logits = (
        jnp.asarray(2 * rng.normal(size=shape), jnp.float32)
        for shape in ((POSITIONS, WIDTH), (ITEMS, WIDTH), (POSITIONS, WORDS))
    )
    count = ITEMS + (WORDS if words else 0)
    labels = jnp.asarray([*rng.integers(0, count, POSITIONS - 2), -1, count])
    return Classes(query, items, logits if words else None, labels)


def whole(entropy: Entropy, given: Classes) -> tuple[jax.Array, jax.Array]:
    logits = given.query @ given.items.T
    if given.words is not None:
        logits = jnp.concatenate([given.words, logits], axis=1)
    logits = soft_cap(logits, entropy.cap)
    losses = smoothed_cross_entropy(jax.nn.log_softmax(logits), given.labels, entropy.smoothing)
    return losses, jax.nn.logsumexp(logits, axis=1)


@pytest.mark.parametrize("size", [4, 37, 50])  # items of a chunk; 37 is no multiple of 4
@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("entropy", [Entropy(), Entropy(1.5, 0.1)])
def test_chunks_give_what_all_logits_give(monkeypatch, size, words, entropy):
    monkeypatch.setattr(full_softmax, "SHORTEST_CHUNK", size)
    monkeypatch.setattr(full_softmax, "LOGITS_AT_ONCE", 1)
    given = classes(words)
    weights = [jnp.asarray(w, jnp.float32) for w in np.random.default_rng(1).normal(size=(2, 12))]

    def both(function):
        def total(arrays):
            losses, normalisers = function(entropy, Classes(*arrays, given.labels))
            return losses @ weights[0] + normalisers @ weights[1], (losses, normalisers)

        return jax.jit(jax.value_and_grad(total, has_aux=True))

    for ours, theirs in zip(
        *(jax.tree.leaves(both(f)(tuple(given[:3]))) for f in (chunked_cross_entropy, whole)),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, **CLOSE)


def test_all_logits_are_never_there():
    query, items = jnp.zeros((512, 8)), jnp.zeros((20_000, 8))
    given = Classes(query, items, None, jnp.zeros(512, int))

    def loss(given):
        return jnp.sum(chunked_cross_entropy(Entropy(), given)[0])

    text = jax.jit(jax.grad(lambda q: loss(given._replace(query=q)))).lower(query).as_text()
    assert "512x20000x" not in text
    assert "20000x512x" not in text


@pytest.mark.parametrize("z_loss", [0.0, 0.01])
def test_the_head_takes_them_where_logits_are_many(monkeypatch, z_loss):
    given, labels = full(inputs(positions=4)), jnp.array([1, 2, 3, 4])
    made = head(full_softmax=True, z_loss_weight=z_loss, label_smoothing=0.1)

    def outcome():
        def total(query):
            out = made.loss(given._replace(query=query), labels, jnp.ones(4))
            return out.loss, out

        return jax.tree.leaves(jax.jit(jax.value_and_grad(total, has_aux=True))(given.query))

    few = outcome()
    monkeypatch.setattr(computation, "WHOLE_LOGITS", 0)
    monkeypatch.setattr(made.__class__, "_full_logits", None)
    for a, b in zip(few, outcome(), strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)
