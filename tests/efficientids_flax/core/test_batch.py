"""Mistakes in batches are told with the field, what came and what is needed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efficientids_flax.core.batch import (
    as_arrays,
    check_batch,
    check_values,
    next_labels,
    wrong_counts,
)
from tests.efficientids_flax.core.model_cases import ITEMS, WORDS, backbone, batch, config

labelled = jax.jit(next_labels, static_argnums=0)

HERE = (0, 1)  # a position that is no padding and whose label has a weight


def changed(**fields):
    return {**batch(), **fields}


def put(name, value, place=HERE, **others):
    """The batch with one number replaced."""
    made = changed(**others)
    made[name] = np.array(made[name])
    made[name][place] = value
    return made


def as_item(name, value, mask):
    return put(name, value, **{mask: put(mask, 1)[mask]})


def as_word(name, value, mask):
    return put(name, value, **{mask: put(mask, 0)[mask]})


@pytest.mark.parametrize("dtype", [bool, np.int32, np.float32, jnp.bfloat16])
def test_masks_of_any_dtype_pass(dtype):
    masks = ("paddings", "input_item_weights", "label_item_weights")
    made = changed(**{name: np.asarray(batch()[name]).astype(dtype) for name in masks})
    check_batch(config(), made, labels=True)


def test_what_the_original_has_besides_is_not_looked_at():
    check_batch(config(), changed(prefix_lengths=np.zeros(2), item_indices="?"), labels=True)


def test_packed_batches_pass():
    segments = np.array([[1, 1, 2, 2, 0, 0]] * 2)
    positions = np.array([[0, 1, 0, 1, 0, 0]] * 2)
    check_batch(config(), changed(segment_ids=segments, segment_pos=positions), labels=True)


def test_the_placeholder_of_target_positions_passes():
    made = as_item("ids", 102, "input_item_weights")
    check_batch(config(), made)
    with pytest.raises(ValueError, match=r"ids: found 102 at \[0, 1\], expected in \[0, 13\)"):
        check_batch(config(placeholder_item_id=None), made)
    check_batch(config(placeholder_item_id=55), as_item("ids", 55, "input_item_weights"))


def test_padding_and_labels_without_weight_may_hold_anything():
    made = put("ids", 10**6, (0, 5))
    made["labels"] = put("labels", -7, (0, 5))["labels"]
    check_batch(config(), made, labels=True)


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (
            as_item("ids", ITEMS, "input_item_weights"),
            r"ids: found 13 at \[0, 1\], expected in \[0, 13\), an item, or the placeholder 102",
        ),
        (as_item("ids", -1, "input_item_weights"), r"ids: found -1 at \[0, 1\]"),
        (as_word("ids", WORDS, "input_item_weights"), r"ids: found 11 .*\[0, 11\), a word"),
        (as_item("labels", 102, "label_item_weights"), r"labels: found 102 .*\[0, 13\), an item"),
        (as_word("labels", 11, "label_item_weights"), r"labels: found 11 .*\[0, 11\), a word"),
        (put("paddings", 2), r"paddings: found 2.0 at \[0, 1\], expected 0 or 1"),
        (put("paddings", np.nan), "paddings: found nan"),
        (put("input_item_weights", -1), "input_item_weights: found -1 .*expected 0 or 1"),
        (put("label_item_weights", 3), "label_item_weights: found 3 .*expected 0 or 1"),
        (put("weights", np.nan), "weights: found nan .*expected finite and at least 0"),
        (put("weights", -0.5), "weights: found -0.5"),
        (changed(segment_ids=np.full((2, 6), -1)), r"segment_ids: found -1 .* and 5 more"),
        (changed(segment_pos=np.full((2, 6), -1)), "segment_pos: found -1 .*expected at least 0"),
        (changed(inputs_indicator=np.full((2, 6), 2)), "inputs_indicator: found 2"),
        (changed(ids=np.zeros((2, 6))), r"ids: found \[2, 6\] of float32, expected integers"),
        (changed(ids=np.zeros(6, int)), r"ids: found \[6\] of int32, expected \[B, T\]"),
        (changed(ids=np.zeros((2, 0), int)), r"ids: found \[2, 0\] .*expected \[B, T\], above 0"),
        (changed(paddings=np.zeros((2, 5))), r"paddings: found \[2, 5\] .*expected \[2, 6\]"),
        (changed(weights=np.full((2, 6), "a")), "weights: found|not a valid JAX"),
        (changed(labels=None), "labels: missing"),
        (changed(label_item_weights=None), "label_item_weights: missing"),
        (changed(input_item_weights=None), "input_item_weights: missing"),
    ],
)
def test_mistakes(made, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        check_batch(config(), made, labels=True)


def test_every_mistake_is_told_at_once():
    made = changed(ids=None, weights=None, paddings=np.zeros((1, 1, 1)))
    with pytest.raises(ValueError, match=r"(?s)3 problems.*ids: .*paddings: .*weights: "):
        check_batch(config(), made, labels=True)


def test_positions_beyond_a_learned_table():
    made = changed(segment_pos=np.full((2, 6), 4))
    learned = config(backbone=backbone(position_embedding="learned", max_positions=4))
    with pytest.raises(ValueError, match=r"segment_pos: found 4 .*below 4, max_positions"):
        check_batch(learned, made)
    check_batch(config(), made)


def test_a_prefix_mask_needs_the_prefix():
    with pytest.raises(ValueError, match="inputs_indicator: missing, attention_mask is 'prefix'"):
        check_batch(config(backbone=backbone(attention_mask="prefix")), batch())


def test_names_of_the_caller():
    names = {"ids": "input_ids", "items": "item_ids", "paddings": "attention"}
    with pytest.raises(ValueError, match="item_ids: found 13"):
        check_batch(config(), as_item("ids", 13, "input_item_weights"), names=names)
    with pytest.raises(ValueError, match="input_ids: missing"):
        check_batch(config(), changed(ids=None), names=names)


def test_under_jit_shapes_are_checked_and_values_are_not():
    def check(given):
        check_batch(config(), given, labels=True)
        return 0

    jax.jit(check)(as_item("ids", 10**6, "input_item_weights"))
    with pytest.raises(ValueError, match="weights: found"):
        jax.jit(check)(changed(weights=np.zeros((2, 5))))


def test_values_of_a_further_batch():
    check_values(config(), batch())
    check_values(config(), {})  # what is missing, the model tells
    check_values(config(), changed(weights=np.ones((2, 1))))
    wrong = as_item("labels", 102, "label_item_weights")
    with pytest.raises(ValueError, match=r"labels: found 102 .*\[0, 13\), an item"):
        check_values(config(), wrong)
    check_values(config(), {name: jnp.asarray(value) for name, value in wrong.items()})


@pytest.mark.parametrize("value", [ITEMS, 2**40])
def test_items_that_are_left_out_are_items(value):
    left_out = np.full((len(batch()["ids"]), 3), -1)
    check_batch(config(), changed(exclude=left_out))
    left_out[0, 1] = value
    sentence = rf"exclude: found {value} at \[0, 1\], expected below {ITEMS}, an item, or -1"
    for check in (check_batch, check_values):
        with pytest.raises(ValueError, match=sentence):
            check(config(), changed(exclude=left_out))
    if value == ITEMS:
        assert wrong_counts(config(), changed(exclude=jnp.asarray(left_out)))["exclude"] == 1
    for wrong in (left_out[:0], left_out * 1.0):
        with pytest.raises(ValueError, match=r"exclude: found .*, expected integers \[B, X\]"):
            check_batch(config(), changed(exclude=wrong))


def test_a_language_model_has_words_alone():
    words = {"ids": np.array([[0, 10]]), "labels": np.array([[10, 0]]), "weights": np.ones((1, 2))}
    check_batch(backbone(), words, labels=True)
    check_batch(backbone(), {**words, "input_item_weights": "?"})
    for name in ("ids", "labels"):
        with pytest.raises(ValueError, match=rf"{name}: found 11 at \[0, 0\].*\[0, 11\), a word"):
            check_batch(backbone(), {**words, name: np.array([[11, 0]])}, labels=True)
    with pytest.raises(ValueError, match="weights: missing"):
        check_batch(backbone(), {"ids": words["ids"], "labels": words["labels"]}, labels=True)


def test_numbers_that_would_wrap_around_are_told():
    assert as_arrays({"ids": [[1, 2]], "paddings": None})["ids"].tolist() == [[1, 2]]
    with pytest.raises(ValueError, match=r"item_ids: found 4294967299 at \[0, 1\], expected in \["):
        as_arrays({"ids": np.array([[1, 2**32 + 3]])}, {"ids": "item_ids"})


def test_masked_arrays_and_ragged_lists_are_refused_by_the_callers_name():
    for given, message in (
        (np.ma.array([[1, 2]], mask=[[0, 1]]), "item_ids: a masked array"),
        ([[1], [2, 3]], "item_ids: lists of different lengths"),
    ):
        with pytest.raises(ValueError, match=message):
            as_arrays({"ids": given}, {"ids": "item_ids"})


def test_next_labels_are_the_following_ids():
    given = batch()
    fields = ("ids", "input_item_weights", "paddings")
    made = labelled(config(), {name: given[name] for name in fields})
    for name, of in (("labels", "ids"), ("label_item_weights", "input_item_weights")):
        np.testing.assert_array_equal(np.asarray(made[name])[:, :-1], given[of][:, 1:])
    np.testing.assert_array_equal(made["weights"], [[1, 1, 1, 0, 0, 0]] * 2)


def test_next_labels_stay_in_their_segment_and_leave_the_prefix():
    made = labelled(
        config(),
        {
            "ids": np.arange(6)[None],
            "segment_ids": np.array([[1, 1, 1, 2, 2, 2]]),
            "inputs_indicator": np.array([[1, 1, 0, 1, 0, 0]]),
        },
    )
    assert "label_item_weights" not in made
    np.testing.assert_array_equal(made["weights"], [[0, 1, 0, 1, 1, 0]])


@pytest.mark.parametrize(
    ("changes", "weights"),
    [
        ({}, [1, 0, 1, 0]),
        ({"placeholder_item_id": None}, [1, 1, 1, 0]),
        # A placeholder that is an item's id may be that item.
        ({"placeholder_item_id": 3}, [1, 1, 1, 0]),
    ],
)
def test_next_labels_do_not_ask_for_a_placeholder(changes, weights):
    """The original's label there is the target's own id, which the input does not tell."""
    given = {
        "ids": np.array([[3, 3, 102, 102]]),  # the last one is a word of that id
        "input_item_weights": np.array([[1, 1, 1, 0]]),
    }
    np.testing.assert_array_equal(labelled(config(**changes), given)["weights"], [weights])
    items = {"ids": given["ids"][:, :3]}  # all are items where no mask says otherwise
    made = labelled(config(**changes), items)
    np.testing.assert_array_equal(made["weights"], [[*weights[:2], 0]])
