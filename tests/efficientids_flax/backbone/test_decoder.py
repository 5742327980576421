"""What must hold of every decoder, whatever its configuration."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from efficientids_flax.backbone import Decoder, make_cache
from efficientids_flax.backbone.masks import positions_from_paddings, segments_from_positions
from efficientids_flax.config import LoraConfig, RotaryConfig
from efficientids_flax.config.positions import RotaryScalingConfig
from efficientids_flax.parameters import parameter_axes, parameter_shapes
from efficientids_flax.tree import flatten
from tests.efficientids_flax.backbone.small_decoders import (
    GPT,
    LLAMA,
    SHAPE,
    VARIANTS,
    hidden,
    made,
    token_ids,
)

CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # float32, sums in another order


@pytest.mark.parametrize("name", VARIANTS)
def test_parameters_are_those_of_the_table(name):
    config = VARIANTS[name]

    def everything(module):
        ids = jnp.zeros((1, 4), int)
        return module.logits(module(ids, inputs_indicator=ids))

    found = jax.eval_shape(partial(Decoder(config).init, method=everything), jax.random.key(0))
    shapes = {path: leaf.shape for path, leaf in flatten(found["params"]).items()}
    assert shapes == parameter_shapes(config)


@pytest.mark.parametrize("name", VARIANTS)
def test_later_tokens_and_other_rows_change_nothing(name):
    config = VARIANTS[name]
    params, ids = made(config), token_ids(config, *SHAPE)
    other = np.array(ids)
    other[:, 5:] = (other[:, 5:] + 1) % config.vocab_size
    other[1] = 0
    before, after = (np.asarray(hidden(config, params, x)) for x in (ids, other))
    np.testing.assert_allclose(before[0, :5], after[0, :5], **CLOSE)
    assert not np.allclose(before[0, 5:], after[0, 5:], **CLOSE)


@pytest.mark.parametrize("name", VARIANTS)
def test_padding_on_either_side_changes_nothing(name):
    """Beside rows that end with other words, which change nothing (above)."""
    config = VARIANTS[name]
    params, ids = made(config), token_ids(config, *SHAPE)
    wanted = np.asarray(hidden(config, params, ids))[0, :6]
    row, junk = np.asarray(ids)[0, :6], np.asarray(token_ids(config, 1, 4, seed=9))[0]
    right, left = np.concatenate([row, junk]), np.concatenate([junk, row])
    paddings = np.array([[0] * 6 + [1] * 4, [1] * 4 + [0] * 6, [1] * 2 + [0] * 6 + [1] * 2])
    both = np.concatenate([junk[:2], row, junk[2:]])
    found = hidden(
        config,
        params,
        np.stack([right, left, both]),
        paddings=paddings,
        positions=positions_from_paddings(paddings),
    )
    for row, start in zip(np.asarray(found), (0, 4, 2), strict=True):
        np.testing.assert_allclose(row[start : start + 6], wanted, **CLOSE)


@pytest.mark.parametrize("name", ["llama", "gpt", "words of another width, positions of tokens"])
def test_padding_on_the_right_needs_no_positions(name):
    config = VARIANTS[name]
    params, ids = made(config), token_ids(config, *SHAPE)
    found = np.asarray(hidden(config, params, ids, paddings=np.array([[0] * 6 + [1] * 4] * 3)))
    wanted = np.asarray(hidden(config, params, ids))
    np.testing.assert_allclose(found[:, :6], wanted[:, :6], **CLOSE)


@pytest.mark.parametrize("name", VARIANTS)
def test_packed_rows_are_those_of_single_ones(name):
    config = VARIANTS[name]
    params, ids = made(config), token_ids(config, *SHAPE)
    rows, positions = np.asarray(ids), np.array([[0, 1, 2, 3, 4, 5, 0, 1, 2, 3]] * 3)
    packed = hidden(
        config,
        params,
        np.concatenate([rows[:, :6], rows[::-1, :4]], 1),
        positions=positions,
        segment_ids=segments_from_positions(jnp.asarray(positions)),
    )
    packed, wanted = np.asarray(packed), np.asarray(hidden(config, params, ids))
    np.testing.assert_allclose(packed[:, :6], wanted[:, :6], **CLOSE)
    np.testing.assert_allclose(packed[:, 6:], wanted[::-1, :4], **CLOSE)


SOME = [  # what layers do with tokens in ways of their own
    "scanned", "one key head, relative bias", "parallel", "experts for all, one shared",
    "latents, a sink for each head", "relative keys, extra logit",
]  # fmt: skip


@pytest.mark.parametrize("name", SOME)
def test_some_tokens_alone_have_the_states_that_they_have_among_all(name):
    config = VARIANTS[name]
    params, ids = made(config), token_ids(config, 2, 7)
    at, paddings = np.array([[5, 2], [-1, 0]]), np.array([[0] * 6 + [1], [0] * 7])
    among_all = np.asarray(hidden(config, params, ids, paddings=paddings))
    found = hidden(config, params, ids, paddings=paddings, at=at)
    np.testing.assert_allclose(found, among_all[np.arange(2)[:, None], at], **CLOSE)


def test_the_last_layer_runs_for_the_wanted_tokens_alone():
    def products(at):
        run = partial(hidden, GPT, made(GPT), jnp.zeros((2, 7), int), at=at)
        lines = str(jax.make_jaxpr(run)()).splitlines()
        return [x for x in lines if "dot_general" in x and f"[14,{GPT.hidden_dims}]" in x]

    assert len(products(None)) == GPT.num_layers
    assert len(products(jnp.full((2, 1), -1))) == GPT.num_layers - 1


@pytest.mark.parametrize("name", ["llama", "gpt", "llama3, multiplied"])
def test_embeddings_in_place_of_ids(name):
    config = VARIANTS[name]
    params, ids = made(config), token_ids(config, 2, 5)
    plain = replace(config, embedding_scale="none")
    unscaled = plain if config.scale_injected_embeddings else config
    given = hidden(unscaled, params, ids, method="embed")
    found = hidden(config, params, inputs_embeds=given)
    np.testing.assert_allclose(found, hidden(config, params, ids), **CLOSE)


@pytest.mark.parametrize(
    "name",
    ["llama", "gpt", "one key head, relative bias", "windows by layer, scanned in blocks"],
)
def test_kernels_stored_the_other_way_are_the_same_model(name):
    """Turned by the letters of the table; the same key gives the same random kernels."""
    ours = replace(VARIANTS[name], lora=LoraConfig(2, targets=("attention/*", "mlp/up")))
    theirs = replace(ours, kernel_axes="out_in")
    axes, wanted = parameter_axes(ours), parameter_axes(theirs)
    orders = {path: [axes[path].index(axis) for axis in wanted[path]] for path in axes}

    def turned(params):
        leaves = flatten_dict(params, sep="/")
        return {path: np.transpose(leaf, orders[path]) for path, leaf in leaves.items()}

    def logits(config, params):
        states = hidden(config, params, token_ids(config, 2, 9))
        return hidden(config, params, states, method="logits")

    params = made(ours)
    found = logits(theirs, unflatten_dict(turned(params), sep="/"))
    np.testing.assert_allclose(found, logits(ours, params), **CLOSE)
    assert sum(order != sorted(order) for order in orders.values()) >= 4

    def everything(module):
        return module.logits(module(jnp.zeros((1, 4), int)))

    def initial(config, key):
        block = config.layers_per_block  # what a layer begins with does not depend on how many are
        config = replace(config, num_layers=block, layer_types=config.layer_types[:block])
        return Decoder(config).init(key, method=everything)["params"]

    both = jax.jit(lambda key: (initial(ours, key), initial(theirs, key)))
    mine, other = both(jax.random.key(1))
    same = turned(mine)
    for path, leaf in flatten_dict(other, sep="/").items():
        np.testing.assert_array_equal(leaf, same[path])


def test_the_embedding_scale_is_rounded_to_the_dtype():
    config = replace(LLAMA, model_dims=48, embedding_scale="sqrt_dim", dtype="bfloat16")
    params, ids = made(config), np.array([[3]])
    rows = np.asarray(params["embedder"]["embedding"])[3].astype(jnp.bfloat16)
    found = np.asarray(hidden(config, params, ids, method="embed"))[0, 0]
    np.testing.assert_array_equal(found, rows * jnp.bfloat16(6.9375))  # sqrt(48) is 6.928


def test_the_longest_position_of_the_batch_decides_the_turn_of_all():
    scaling = RotaryScalingConfig(
        kind="longrope", factor=4.0, original_max_positions=6,
        short_factors=(1.0,) * 3, long_factors=(3.0,) * 3,
    )  # fmt: skip
    config = replace(LLAMA, rotary=RotaryConfig(scaling=scaling))
    params, ids = made(config), token_ids(config, 2, 4)
    positions = np.broadcast_to(np.arange(4), (2, 4))
    short = hidden(config, params, ids, positions=positions)
    long = hidden(config, params, ids, positions=positions + np.array([[0], [3]]))
    assert not np.allclose(np.asarray(short)[0], np.asarray(long)[0], atol=1e-3)


def test_half_precision_stays_near_single():
    config = replace(LLAMA, norm_scale_in_float32=True)
    params, ids = made(config), token_ids(config, 2, 8)
    half = hidden(replace(config, dtype="bfloat16"), params, ids)
    assert half.dtype == jnp.bfloat16
    wanted = hidden(config, params, ids)
    error = np.abs(np.asarray(half, np.float32) - wanted).max() / np.abs(wanted).max()
    assert error < 8 * 2**-8  # a few roundings of 2^-9 a layer


def test_intermediates_have_the_names_that_parity_checks_look_up():
    config = replace(VARIANTS["llama"], qk_norm="per_head")
    ids = token_ids(config, 1, 3)

    def run(module):
        return module.logits(module(ids))

    _, state = jax.eval_shape(
        lambda: Decoder(config).apply(
            {"params": made(config)},
            method=run,
            capture_intermediates=True,
            mutable=["intermediates"],
        )
    )
    names = {path.removesuffix("/__call__") for path in flatten(state["intermediates"])}
    layer = [
        "attention_norm", "attention/query", "attention/query/product", "attention/query_norm",
        "attention/key_norm", "attention/rotated_query", "attention/rotated_key",
        "attention/scaled_query", "attention/logits", "attention/probs", "attention/mixed",
        "attention/out", "attention", "attention_residual", "mlp_norm", "mlp/up", "mlp/gate",
        "mlp/activated", "mlp/hidden", "mlp/down/product", "mlp/down", "mlp",
    ]  # fmt: skip
    top = ["word_rows", "word_embeddings", "layer_input", "mask_full", "final_norm", "logits"]
    inner = [f"layers_1/{name}" for name in layer]
    assert {*top, "lm_head", "lm_head/product", "layers_0", *inner} <= names


@pytest.mark.parametrize(
    ("arguments", "sentences"),
    [
        ({}, ["ids, inputs_embeds: expected one of them, found neither"]),
        (
            {"ids": jnp.zeros((2, 3), int), "inputs_embeds": jnp.zeros((2, 3, 16))},
            ["ids, inputs_embeds: expected one of them, found both"],
        ),
        ({"ids": jnp.zeros((2, 3))}, ["ids: found float32 [2, 3], expected [B, T] of integers"]),
        (
            {"inputs_embeds": jnp.zeros((2, 3, 5))},
            ["inputs_embeds: found float32 [2, 3, 5], expected [B, T, 16] of floats"],
        ),
        (
            {
                "ids": jnp.zeros((2, 3), int),
                "paddings": jnp.zeros((2, 4)),
                "segment_ids": jnp.zeros((2, 3)),
                "positions": jnp.zeros(3, int),
            },
            [
                "3 problems",
                "paddings: found float32 [2, 4], expected [2, 3] of numbers",
                "segment_ids: found float32 [2, 3], expected [2, 3] of integers",
                "positions: found int32 [3], expected [2, 3] of integers",
            ],
        ),
        (
            {"ids": jnp.zeros((2, 3), int), "at": jnp.zeros(2, int)},
            ["at: found int32 [2], expected [2, T] of integers"],
        ),
    ],
)
def test_wrong_inputs_are_named_with_what_came_and_what_is_needed(arguments, sentences):
    with pytest.raises(ValueError) as caught:
        jax.eval_shape(lambda: hidden(LLAMA, made(LLAMA), **arguments))
    for sentence in sentences:
        assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (replace(GPT, max_positions=4), "positions: 5 tokens, max_positions is 4"),
        (replace(LLAMA, attention_mask="prefix"), "inputs_indicator: missing"),
        (replace(LLAMA, vocab_size=0), "ids: the configuration has no words"),
    ],
)
def test_inputs_that_do_not_fit_the_configuration(config, sentence):
    with pytest.raises(ValueError, match=sentence):
        Decoder(config).init(jax.random.key(0), jnp.zeros((1, 5), int))


def test_words_of_another_width_are_projected():
    """As if the products with the projections were the tables."""
    plain = replace(GPT, tied_embeddings=False)
    config = replace(plain, embedding_dims=10)
    params, ids = made(config), token_ids(config, 2, 5)
    before = np.asarray(params["embedding_projection"]["kernel"])
    after = np.asarray(params["output_projection"]["kernel"])
    rows = np.asarray(params["embedder"]["embedding"])
    folded = {name: params[name] for name in params if not name.endswith("_projection")} | {
        "embedder": {"embedding": rows @ before},
        "lm_head": {"kernel": after @ np.asarray(params["lm_head"]["kernel"])},
    }
    wanted = hidden(plain, folded, ids)
    np.testing.assert_allclose(hidden(config, params, ids), wanted, **CLOSE)
    narrow = rows[np.asarray(ids)]
    for embeds in (narrow, narrow @ before):
        found = hidden(config, params, inputs_embeds=embeds)
        np.testing.assert_allclose(found, wanted, **CLOSE)
    logits = hidden(config, params, wanted, method="logits")
    np.testing.assert_allclose(logits, hidden(plain, folded, wanted, method="logits"), **CLOSE)


def test_learned_positions_begin_at_a_row():
    config = replace(GPT, position_offset=2)
    params, ids = made(config), token_ids(config, 2, 5)
    rows = {"embedding": np.asarray(params["position_embedding"]["embedding"])[2:]}
    wanted = hidden(GPT, {**params, "position_embedding": rows}, ids)
    np.testing.assert_allclose(hidden(config, params, ids), wanted, **CLOSE)


def test_positions_may_pass_over_padding_in_a_cache_too():
    config = replace(GPT, positions_pass_padding=True)
    params, ids = made(config), token_ids(config, 2, 6)
    ids, paddings = np.asarray(ids), np.array([[1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]])
    positions = positions_from_paddings(paddings)
    wanted = hidden(GPT, params, ids, paddings=paddings, positions=positions)
    np.testing.assert_allclose(hidden(config, params, ids, paddings=paddings), wanted, **CLOSE)
    cache, found = make_cache(config, 2, 6), []
    for part in (slice(0, 3), slice(3, 6)):
        states, cache = hidden(
            config, params, ids[:, part], cache=cache, paddings=paddings[:, part], method="extend"
        )
        found.append(states)
    np.testing.assert_allclose(np.concatenate(found, 1), wanted, **CLOSE)


def test_a_decoder_without_words_takes_embeddings():
    config = replace(LLAMA, vocab_size=0)
    x = np.ones((1, 3, 16), np.float32)
    begin = jax.jit(lambda key: Decoder(config).init(key, inputs_embeds=x))
    params = begin(jax.random.key(0))["params"]
    assert hidden(config, params, inputs_embeds=x).shape == (1, 3, 16)
    assert not {"lm_head", "embedder"} & set(params)
