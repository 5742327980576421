"""Mistakes in what a head that is used alone is given."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efficientids_flax.config import AdapterConfig
from efficientids_flax.config.recommender import HeadConfig
from efficientids_flax.core.head.softmax import HierarchicalSoftmax
from tests.efficientids_flax.core.model_cases import CLUSTERS, ITEMS, MODEL, WIDTH, clustering

HIDDEN = np.random.default_rng(3).normal(size=(2, 3, MODEL)).astype(np.float32)
TARGETS = np.array([[1, 2, 3], [4, 5, 6]])
WORD_LOGITS = np.zeros((2, 3, 7), np.float32)


def alone(**changes):
    return HierarchicalSoftmax(ITEMS, CLUSTERS, WIDTH, clustering(), **changes)


@pytest.fixture(scope="module")
def started():
    """A head that goes from width 8 to the items' 6."""
    made = alone()
    return made, jax.jit(made.init)(jax.random.key(0), HIDDEN)


def put(value, place=(1, 2), array=TARGETS):
    made = np.array(array)
    made[place] = value
    return made


MISTAKES = {
    "beyond the items": (
        {"targets": put(99)},
        r"targets: found 99 at \[1, 2\].*\[0, 13\), an item",
    ),
    "below": ({"targets": put(-1)}, r"targets: found -1 at \[1, 2\]"),
    "wraps around": ({"targets": put(2**32 + 6)}, r"targets: found 4294967302 at \[1, 2\]"),
    "shape of targets": (
        {"targets": TARGETS[:, :1]},
        r"targets: found \[2, 1\] of int32, expected \[2, 3\], that of the hidden states",
    ),
    "dtype of targets": (
        {"targets": TARGETS.astype(np.float32)},
        r"targets: found \[2, 3\] of float32, expected integers",
    ),
    "no numbers": ({"weights": np.full((2, 3), "a")}, r"weights: found .*, expected numbers"),
    "shape of weights": (
        {"weights": np.ones((2, 1))},
        r"weights: found \[2, 1\] of float32, expected \[2, 3\]",
    ),
    "weights": (
        {"weights": np.full((2, 3), -1.0)},
        r"weights: found -1.0 at \[0, 0\].* and 3 more, expected finite and at least 0",
    ),
    "weights beyond int32": ({"weights": put(2**32)}, "weights: found 4294967296 .*int32"),
    "shape of the mask": (
        {"target_is_item": np.ones((2, 1))},
        r"target_is_item: found \[2, 1\] of float32, expected \[2, 3\]",
    ),
    "values of the mask": (
        {"target_is_item": np.full((2, 3), 2)},
        r"target_is_item: found 2 at \[0, 0\].*, expected 0 or 1",
    ),
    "words that there are not": (
        {"target_is_item": put(0, array=np.ones((2, 3)))},
        r"targets: found 6 at \[1, 2\], expected an item: there are no words",
    ),
    "beyond the words": (
        {
            "targets": put(7),
            "target_is_item": put(0, array=np.ones((2, 3))),
            "word_logits": WORD_LOGITS,
        },
        r"targets: found 7 at \[1, 2\], expected in \[0, 7\), a word",
    ),
    "shape of the words": (
        {"word_logits": np.zeros((3, 7), np.float32)},
        r"word_logits: found \[3, 7\] of float32, expected \[2, 3, V\]",
    ),
    "dtype of the words": (
        {"word_logits": np.zeros((2, 3, 7), np.int32)},
        r"word_logits: found \[2, 3, 7\] of int32, expected floats",
    ),
    "weights of nothing": (
        {"targets": None, "weights": np.ones((2, 3))},
        "weights: given without the targets",
    ),
    "dtype of hidden": (
        {"hidden": np.ones((2, 3, MODEL), int)},
        r"hidden: found \[2, 3, 8\] of int32, expected floats",
    ),
    "no width": (
        {"hidden": np.float32(1)},
        r"hidden: found \[\] of float32, expected \[..., 8\], the width of the parameters",
    ),
}


@pytest.mark.parametrize(("changes", "sentence"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes(started, changes, sentence):
    made, variables = started
    with pytest.raises(ValueError, match=sentence):
        made.apply(variables, **{"hidden": HIDDEN, "targets": TARGETS, **changes})


def test_all_mistakes_are_told_at_once(started):
    made, variables = started
    with pytest.raises(
        ValueError, match=r"(?s)4 problems.*hidden: .*targets: .*weights: .*_item: "
    ):
        made.apply(
            variables,
            np.ones((2, 3, WIDTH), np.float32),
            TARGETS[:1],
            np.ones(3),
            target_is_item=np.ones((1, 1)),
        )


def test_targets_without_weight_may_hold_anything(started):
    made, variables = started
    weights = put(0.0, array=np.ones((2, 3)))
    loss = made.apply(variables, HIDDEN, TARGETS, weights)["loss"]
    other = made.apply(variables, HIDDEN, put(2**32 + 6), weights)["loss"]
    assert loss == other


def test_lists_are_arrays(started):
    made, variables = started
    one = made.apply(variables, HIDDEN, TARGETS.tolist(), np.ones((2, 3)).tolist())["loss"]
    assert one == made.apply(variables, HIDDEN, TARGETS)["loss"]


def test_under_jit_shapes_are_checked_and_values_are_not(started):
    made, variables = started
    apply = jax.jit(
        lambda targets, weights: made.apply(variables, HIDDEN, targets, weights)["loss"]
    )
    assert np.isfinite(apply(put(99), np.ones((2, 3))))
    with pytest.raises(ValueError, match=r"weights: found \[2, 1\]"):
        apply(TARGETS, np.ones((2, 1)))


def test_a_check_adds_nothing_to_the_program(started):
    made, variables = started

    def called(hidden, targets, weights):
        return made.apply(variables, hidden, targets, weights)["loss"]

    def unchecked(hidden, targets, weights):
        def loss(module):
            return module.head.loss(module.inputs(hidden), targets, weights).loss

        return made.apply(variables, method=loss)

    given = jnp.asarray(HIDDEN), jnp.asarray(TARGETS), jnp.ones((2, 3))
    checked, free = (str(jax.make_jaxpr(function)(*given)) for function in (called, unchecked))
    assert checked == free


@pytest.mark.parametrize("method", ["__call__", "inputs"])
def test_parameters_decide_whether_there_is_an_adapter(started, method):
    """Not the width of what comes: hidden states of the items' width skipped it once."""
    made, variables = started
    assert "item_output_adapter" in variables["params"]
    narrow = HIDDEN[..., :WIDTH]
    wanted = r"hidden: found \[2, 3, 6\] of float32, expected \[..., 8\], the width of the par"
    with pytest.raises(ValueError, match=wanted):
        made.apply(variables, narrow, method=method)
    plain = jax.jit(made.init)(jax.random.key(0), narrow)
    assert "item_output_adapter" not in plain["params"]
    jax.eval_shape(partial(made.apply, method=method), plain, narrow)
    with pytest.raises(ValueError, match=r"hidden: found \[2, 3, 8\] .*expected \[..., 6\]"):
        made.apply(plain, HIDDEN, method=method)


def wired():
    made = HeadConfig(
        ITEMS,
        WIDTH,
        CLUSTERS,
        input_adapter_everywhere=False,
        output_adapter=AdapterConfig(),
        trainable_cluster_embeddings=True,
    )
    return HierarchicalSoftmax(config=made, clustering_info=clustering())


def test_a_configuration_without_a_width_has_that_of_its_parameters():
    made = wired()
    variables = jax.jit(made.init)(jax.random.key(0), HIDDEN)
    jax.eval_shape(made.apply, variables, HIDDEN)
    with pytest.raises(ValueError, match=r"hidden: found \[2, 3, 6\] .*expected \[..., 8\]"):
        made.apply(variables, HIDDEN[..., :WIDTH])


def test_an_adapter_that_keeps_the_width_is_not_skipped():
    narrow = HIDDEN[..., :WIDTH]
    variables = jax.jit(wired().init)(jax.random.key(0), narrow)
    one, two = (made.apply(variables, narrow, method="inputs").query for made in (wired(), alone()))
    np.testing.assert_array_equal(one, two)
    assert not np.allclose(one, narrow)


@pytest.mark.parametrize("width", [MODEL, WIDTH])
def test_a_given_width_decides_before_there_are_parameters(width):
    made = alone(model_dims=width)
    found = jax.eval_shape(made.init, jax.random.key(0), HIDDEN[..., :width])["params"]
    assert ("item_output_adapter" in found) == (width != WIDTH)
    other = MODEL + WIDTH - width
    with pytest.raises(ValueError, match=rf"hidden: found .*expected \[..., {width}\]"):
        jax.eval_shape(made.init, jax.random.key(0), HIDDEN[..., :other])
