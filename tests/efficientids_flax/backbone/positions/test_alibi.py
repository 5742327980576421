"""Linear biases: the slopes that the paper gives, and what does not change them."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from efficientids_flax.backbone.positions.alibi import head_slopes, linear_biases
from efficientids_flax.config import AlibiConfig
from tests.efficientids_flax.backbone.small_decoders import GPT, hidden, made, token_ids


def test_slopes_of_a_power_of_two_are_a_geometric_sequence() -> None:
    np.testing.assert_allclose(head_slopes(8, 8.0), 0.5 ** np.arange(1, 9), rtol=1e-6)
    np.testing.assert_allclose(head_slopes(4, 16.0), 0.5 ** np.arange(4, 17, 4), rtol=1e-6)


def test_other_numbers_of_heads_take_every_other_slope_of_the_next_power() -> None:
    # get_slopes of ALiBi's authors: those of 4 heads, then the first, third ... of 8.
    wanted = [*0.5 ** np.arange(2, 9, 2), *0.5 ** np.array([1.0, 3.0])]
    np.testing.assert_allclose(head_slopes(6, 8.0), wanted, rtol=1e-6)


def test_biases_of_falcon_are_rounded_before_they_are_scaled() -> None:
    config = AlibiConfig(in_bfloat16=True, scale=0.25)
    found = linear_biases(config, 3, jnp.asarray([[0, 1, 257]]))
    # 257 is 256 in bfloat16; the third slope is that of the first of four heads.
    np.testing.assert_array_equal(
        found[0, :, 0], 0.25 * np.outer([0.0625, 0.00390625, 0.25], [0, 1, 256])
    )


def test_only_distances_count() -> None:
    config = replace(GPT, position_embedding="none", alibi=AlibiConfig())
    params, ids = made(config), token_ids(config, 2, 7)
    plain = hidden(config, params, ids)
    moved = hidden(config, params, ids, positions=np.arange(20, 27)[None].repeat(2, 0))
    np.testing.assert_allclose(moved, plain, atol=1e-5)
    spread = hidden(config, params, ids, positions=3 * np.arange(7)[None].repeat(2, 0))
    assert np.abs(np.asarray(spread) - np.asarray(plain))[:, 1:].max() > 1e-2
