"""A decoder that reads piece by piece gives what it gives when it reads all at once."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efficientids_flax.backbone import make_cache
from efficientids_flax.backbone.masks import positions_from_paddings
from tests.efficientids_flax.backbone.small_decoders import (
    GPT,
    LLAMA,
    SHAPE,
    VARIANTS,
    hidden,
    made,
    token_ids,
)

CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # float32, sums over more places that weigh nothing
TIME, SIZE = SHAPE[1], 13
PADDINGS = np.array([[1] * 3 + [0] * 7, [0] * 10, [0] * 7 + [1] * 3])


def in_pieces(config, params, batch, ends):
    """Hidden states of a batch that is read from each of `ends` to the next."""
    cache = make_cache(config, next(iter(batch.values())).shape[0], SIZE)
    pieces = []
    for start, end in zip((0, *ends), (*ends, TIME), strict=True):
        piece = {name: values[:, start:end] for name, values in batch.items()}
        states, cache = hidden(config, params, cache=cache, **piece, method="extend")
        pieces.append(states)
    return np.concatenate(pieces, axis=1), cache.used


@pytest.mark.parametrize("name", VARIANTS)
def test_pieces_give_the_hidden_states_of_the_whole(name):
    config = VARIANTS[name]
    params, ids = made(config), np.asarray(token_ids(config, *SHAPE))
    batch = {"paddings": PADDINGS, "positions": np.asarray(positions_from_paddings(PADDINGS))}
    found, used = in_pieces(
        config, params, {"ids": ids, **batch}, (4, 5, 6)
    )  # 4, 1, 1, 4: 2 programs
    # padding is among itself, whatever lies in the cache
    np.testing.assert_allclose(found, hidden(config, params, ids, **batch), **CLOSE)
    assert used == TIME


@given(st.sets(st.integers(1, TIME - 1), max_size=3), st.integers(0, 2**31 - 1))
@settings(max_examples=4, deadline=None)
def test_any_pieces_will_do(ends, seed):
    config = VARIANTS["windows by layer, scanned in blocks"]
    params, ids = made(config, seed), np.asarray(token_ids(config, 1, TIME, seed))
    found, _ = in_pieces(config, params, {"ids": ids}, tuple(sorted(ends)))
    np.testing.assert_allclose(found, hidden(config, params, ids), **CLOSE)


def test_packed_segments_stay_apart_in_the_cache():
    params, ids = made(LLAMA), np.asarray(token_ids(LLAMA, 1, TIME))
    batch = {
        "segment_ids": np.array([[1, 1, 1, 2, 2, 2, 2, 3, 3, 3]]),
        "positions": np.array([[0, 1, 2, 0, 1, 2, 3, 0, 1, 2]]),
    }
    found, _ = in_pieces(LLAMA, params, {"ids": ids, **batch}, (2, 6))
    np.testing.assert_allclose(found, hidden(LLAMA, params, ids, **batch), **CLOSE)


def test_embeddings_can_be_read_too():
    params = made(GPT)
    rows = np.random.default_rng(0).normal(size=(2, TIME, 16)).astype(np.float32)
    found, _ = in_pieces(GPT, params, {"inputs_embeds": rows}, (5,))
    np.testing.assert_allclose(found, hidden(GPT, params, inputs_embeds=rows), **CLOSE)


def test_a_prefix_that_is_read_at_once_is_seen_by_all():
    config = replace(LLAMA, attention_mask="prefix")
    params, ids = made(config), np.asarray(token_ids(config, 1, TIME))
    prefix = np.array([[1] * 4 + [0] * 6])
    found, _ = in_pieces(config, params, {"ids": ids, "inputs_indicator": prefix}, (4, 7))
    wanted = np.asarray(hidden(config, params, ids, inputs_indicator=prefix))
    np.testing.assert_allclose(found, wanted, **CLOSE)
    assert not np.allclose(wanted[:, :3], np.asarray(hidden(LLAMA, params, ids))[:, :3], **CLOSE)


def test_half_precision_keys_take_half_the_room():
    whole, half = make_cache(LLAMA, 2, 5), make_cache(LLAMA, 2, 5, "bfloat16")
    assert half.layers[0].keys.nbytes * 2 == whole.layers[0].keys.nbytes == 2 * 5 * 2 * 6 * 4
    assert len(whole.layers) == 2


def test_scanned_layers_lie_in_one_array():
    cache = make_cache(VARIANTS["windows by layer, scanned in blocks"], 3, 5)
    assert [layer.keys.shape for layer in cache.layers] == [(2, 3, 5, 2, 6)] * 2


def test_more_tokens_than_places_are_refused():
    params = made(LLAMA)
    with pytest.raises(ValueError, match="6 tokens do not fit a cache of 5"):
        hidden(
            LLAMA, params, token_ids(LLAMA, 1, 6), cache=make_cache(LLAMA, 1, 5), method="extend"
        )


def test_without_a_cache_there_is_nothing_to_extend():
    with pytest.raises(ValueError, match="cache: missing; make one with make_cache"):
        hidden(LLAMA, made(LLAMA), token_ids(LLAMA, 1, 6), method="extend")


def test_a_bidirectional_decoder_has_no_cache():
    with pytest.raises(ValueError, match="'bidirectional' cannot use a cache"):
        make_cache(replace(LLAMA, attention_mask="bidirectional"), 1, 4)
