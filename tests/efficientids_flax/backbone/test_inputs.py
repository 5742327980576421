"""Values of a batch: outside of jit they must have a row in their table, inside they are zeros."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from efficientids_flax.backbone import Decoder, make_cache
from tests.efficientids_flax.backbone.small_decoders import GPT, LLAMA, hidden, made

# 31 words; of few operations, since outside of jit each is compiled for itself.
SMALL = replace(
    GPT, num_layers=1, max_positions=6, norm="rms_norm", norm_bias=False, activation="relu",
    mlp_bias=False, qkv_bias=False, attention_out_bias=False, fused_qkv=False,
)  # fmt: skip
IDS = np.array([[1, 2, 3], [4, 5, 6]])
HALF = np.array([[0, 0, 1], [0, 0, 0]])  # padding at [0, 2]


def changed(place, value):
    """The ids with one other, as NumPy has them."""
    ids = IDS.copy()
    ids[place] = value
    return ids


@pytest.fixture(scope="module")
def variables():
    return {"params": made(SMALL)}


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
@pytest.mark.parametrize(
    ("given", "sentences"),
    [
        (
            {"ids": changed((0, 2), 31)},
            ["ids: found 31 at [0, 2], expected in [0, 31), a word"],
        ),
        ({"ids": changed((1, 0), -1)}, ["ids: found -1 at [1, 0]"]),
        (
            {"ids": np.full((2, 3), 40)},
            ["ids: found 40 at [0, 0], 40 at [0, 1], 40 at [0, 2] and 3 more"],
        ),
        (
            {"ids": IDS, "positions": np.array([[0, 1, 6], [0, -1, 2]])},
            ["positions: found 6 at [0, 2], -1 at [1, 1]", "expected in [0, 6), max_positions"],
        ),
        (
            {
                "ids": changed((0, 2), 31), "paddings": np.full((2, 3), 0.5),
                "segment_ids": IDS - 2, "positions": IDS, "inputs_indicator": IDS,
            },
            [
                "5 problems", "paddings: found 0.5 at [0, 0]", "expected 0 or 1",
                "segment_ids: found -1 at [0, 0]", "positions: found 6 at [1, 2]",
                "inputs_indicator: found 2 at [0, 1]",
            ],
        ),
        (
            {"inputs_embeds": np.zeros((2, 3, 16), np.float32), "positions": IDS + 3},
            ["positions: found 6 at [0, 2], 7 at [1, 0], 8 at [1, 1] and 1 more"],
        ),
        (
            {"ids": IDS, "at": np.array([[-3], [3]])},
            ["at: found 3 at [1, 0], expected in [-3, 3), a token of the row"],
        ),
    ],
)  # fmt: skip
def test_values_without_a_row_are_refused(variables, kind, given, sentences):
    with pytest.raises(ValueError) as caught:
        Decoder(SMALL).apply(variables, **{name: kind(value) for name, value in given.items()})
    for sentence in sentences:
        assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("ids", changed((0, 1), 2**32 + 5), r"ids: found 4294967301 at \[0, 1\]"),
        ("positions", changed((0, 1), 2**32 + 5), r"positions: found 4294967301 at \[0, 1\]"),
        ("segment_ids", changed((0, 1), 2**32 + 1), r"segment_ids: found 4294967297 at \[0, 1\]"),
    ],
)
def test_whole_numbers_that_would_wrap_around_are_refused(name, value, sentence):
    with pytest.raises(ValueError, match=sentence):
        Decoder(LLAMA).apply({"params": made(LLAMA)}, **{"ids": IDS, name: value})


def test_what_is_padding_may_be_anything(variables):
    decoder = Decoder(SMALL)
    wanted = decoder.apply(variables, IDS, paddings=HALF)
    positions = np.array([[0, 1, 99], [0, 1, 2]])
    found = decoder.apply(variables, changed((0, 2), -100), paddings=HALF, positions=positions)
    seen = HALF == 0
    np.testing.assert_array_equal(np.asarray(found)[seen], np.asarray(wanted)[seen])


def test_inside_jit_a_word_without_a_row_is_zeros(variables):
    """As Praxis' product with a one-hot matrix; nobody can say otherwise there."""
    params = variables["params"]
    rows = np.array(hidden(SMALL, params, jnp.asarray(IDS), method="embed"))
    for outside in (31, -1):
        ids = jnp.asarray(changed((0, 2), outside))
        rows[0, 2] = 0
        wanted = hidden(SMALL, params, inputs_embeds=rows)
        np.testing.assert_array_equal(hidden(SMALL, params, ids), wanted)


def test_items_are_looked_up_in_the_table_of_words(variables):
    """As the recommender does outside of jit too: `embed` alone looks at no value."""
    found = Decoder(SMALL).apply(variables, jnp.asarray(changed((0, 2), 31)), method="embed")
    assert not np.asarray(found)[0, 2].any()


def test_a_cache_counts_outside_of_jit(variables):
    decoder = Decoder(SMALL)

    def read(cache, ids):
        return decoder.apply(variables, ids, cache, method="extend")[1]

    cache = read(make_cache(SMALL, 2, 5), IDS)
    with pytest.raises(ValueError, match="3 tokens after 3 do not fit a cache of 5"):
        read(cache, IDS)
    with pytest.raises(ValueError, match=r"ids: found 31 at \[0, 0\]"):
        read(cache, changed((0, 0), 31))
    cache = read(read(make_cache(SMALL, 2, 9), IDS), IDS)
    with pytest.raises(ValueError, match="positions: 3 tokens after 6, max_positions is 6"):
        read(cache, IDS)
