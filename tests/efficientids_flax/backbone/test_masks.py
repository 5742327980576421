"""Masks against a loop over pairs, and positions and segments that a batch does not give."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efficientids_flax.backbone.masks import (
    Marks,
    attention_mask,
    layer_kind,
    positions_from_paddings,
    segments_from_positions,
)
from tests.efficientids_flax.backbone.small_decoders import LLAMA


@partial(jax.jit, static_argnums=(0, 1))
def masked(config, sliding, asking, asked, of_asking, of_asked, prefix):
    """The mask of tokens at these places, of these segments."""
    return attention_mask(config, sliding, Marks(asking, of_asking), Marks(asked, of_asked, prefix))


@given(
    st.sampled_from(["causal", "bidirectional", "prefix"]),
    st.booleans(),
    st.sampled_from([1, 5, 8]).flatmap(  # each length, and each start, compiles anew
        lambda length: st.lists(st.integers(0, 2), min_size=length, max_size=length)
    ),
    st.lists(st.booleans(), min_size=8, max_size=8),
    st.integers(1, 5),
    st.none() | st.integers(1, 5),
    st.sampled_from([0, 3, 7]),
)
@settings(max_examples=60, deadline=None)
def test_masks_are_what_a_loop_over_pairs_says(
    direction, sliding, segments, prefix, window, ahead, start
):
    config = replace(
        LLAMA, attention_mask=direction, sliding_window=window, sliding_window_ahead=ahead
    )
    start = min(start, len(segments) - 1)
    segments, prefix = np.array([segments]), np.array([prefix[: len(segments)]])
    places = np.arange(segments.shape[1])
    found = masked(config, sliding, places[start:], places, segments[:, start:], segments, prefix)

    def sees(query, key):
        if segments[0, query] != segments[0, key]:
            return False
        if sliding and key <= query - window:
            return False
        if sliding and ahead is not None and key >= query + ahead:
            return False
        if direction == "prefix" and prefix[0, key]:
            return True
        return direction == "bidirectional" or key <= query

    count = segments.shape[1]
    wanted = [[sees(query, key) for key in range(count)] for query in range(start, count)]
    np.testing.assert_array_equal(found, np.array(wanted)[None, None])


def test_a_prefix_is_asked_for():
    config = replace(LLAMA, attention_mask="prefix")
    marks = Marks(jnp.arange(2), jnp.ones((1, 2), int))
    with pytest.raises(ValueError, match="inputs_indicator"):
        attention_mask(config, False, marks, marks)


def test_positions_pass_over_padding_on_both_sides():
    paddings = jnp.array([[1, 1, 0, 0, 0], [0, 0, 1, 1, 1], [0, 1, 0, 0, 1]])
    found = positions_from_paddings(paddings)
    np.testing.assert_array_equal(found, [[0, 0, 0, 1, 2], [0, 1, 1, 1, 1], [0, 0, 1, 2, 2]])


def test_segments_begin_where_positions_break():
    positions = jnp.array([[0, 1, 2, 0, 1, 0, 0, 1], [5, 6, 7, 8, 0, 1, 2, 3]])
    paddings = jnp.array([[0] * 7 + [1], [0] * 8])
    found = segments_from_positions(positions, paddings)
    np.testing.assert_array_equal(found, [[1, 1, 1, 2, 2, 3, 4, 0], [1, 1, 1, 1, 2, 2, 2, 2]])


def test_layers_slide_by_their_type_or_all():
    assert layer_kind(LLAMA, 0) == "full"
    sliding = replace(LLAMA, sliding_window=3)
    assert layer_kind(sliding, 1) == "sliding"
    mixed = replace(sliding, layer_types=("full", "sliding"))
    assert [layer_kind(mixed, index) for index in range(2)] == ["full", "sliding"]
