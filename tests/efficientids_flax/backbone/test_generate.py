"""Generation against a loop that recomputes everything for each token."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from efficientids_flax.backbone.decoder import Decoder
from efficientids_flax.backbone.generate import generate
from efficientids_flax.backbone.sampling import SamplingConfig, filtered
from efficientids_flax.config import RotaryConfig, RotaryScalingConfig
from tests.efficientids_flax.backbone.small_decoders import (
    GPT,
    LLAMA,
    VARIANTS,
    hidden,
    made,
    token_ids,
)

PROMPTS = np.array([[1, 1, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 1, 1]])  # their padding
NEW = 5
# Where one shows it; the variants have more.
ONE_LAYER, ONE_OF_GPT = replace(LLAMA, num_layers=1), replace(GPT, num_layers=1)


def naive(config, params, rows, count, **more):
    """Likeliest tokens after rows without padding, one by one; each step is the same program."""
    lengths, each = np.array([len(row) for row in rows]), np.arange(len(rows))
    room = np.arange(lengths.max() + count)  # what is not there yet is padding
    ids = np.zeros((len(rows), room.size), np.int32)
    for row, prompt in zip(ids, rows, strict=True):
        row[: len(prompt)] = prompt
    for ends in (lengths + step for step in range(count)):
        paddings = (room >= ends[:, None]).astype(np.int32)
        places = np.minimum(room, ends[:, None] - 1)  # none is further than the last token
        states = hidden(config, params, ids, paddings=paddings, positions=places, **more)
        last = np.asarray(states)[each, ends - 1][:, None]
        logits = np.asarray(hidden(config, params, last, method="logits"))
        ids[each, ends] = np.argmax(logits[:, 0], axis=-1)
    return [row[length : length + count] for row, length in zip(ids, lengths, strict=True)]


@pytest.mark.parametrize("name", VARIANTS)
def test_greedy_generation_is_the_naive_loop(name):
    config = VARIANTS[name]
    params, ids = made(config), token_ids(config, 3, PROMPTS.shape[1])
    found = generate(Decoder(config), params, ids, PROMPTS, max_new_tokens=NEW)
    rows = [np.asarray(row)[padding == 0] for row, padding in zip(ids, PROMPTS, strict=True)]
    np.testing.assert_array_equal(found.tokens, naive(config, params, rows, NEW))
    np.testing.assert_array_equal(found.lengths, [NEW] * 3)


def test_the_end_is_kept_and_what_follows_is_padding():
    params, ids = made(ONE_LAYER), token_ids(ONE_LAYER, 3, PROMPTS.shape[1])
    whole = np.asarray(generate(Decoder(ONE_LAYER), params, ids, PROMPTS, max_new_tokens=8).tokens)
    ends = (int(whole[0, 2]), int(whole[1, 4]))
    found = generate(
        Decoder(ONE_LAYER), params, ids, PROMPTS, max_new_tokens=8, eos_id=ends, pad_id=30
    )
    for row, kept, length in zip(whole, np.asarray(found.tokens), found.lengths, strict=True):
        places = np.flatnonzero(np.isin(row, ends))
        last = places[0] + 1 if places.size else 8
        assert length == last
        np.testing.assert_array_equal(kept[:last], row[:last])
        assert (kept[last:] == 30).all()


def test_embeddings_are_a_prompt_too():
    params, ids = made(ONE_OF_GPT), token_ids(ONE_OF_GPT, 2, 4)
    rows = hidden(ONE_OF_GPT, params, ids, method="embed")
    wanted = generate(Decoder(ONE_OF_GPT), params, ids, max_new_tokens=3)
    found = generate(Decoder(ONE_OF_GPT), params, inputs_embeds=rows, max_new_tokens=3)
    np.testing.assert_array_equal(found.tokens, wanted.tokens)


@pytest.mark.parametrize("given", ["ids", "inputs_embeds"])
def test_text_that_outgrows_its_length_is_read_anew(given):
    """LongRoPE as Phi-3 has it: each token follows from all before it, with the factors of now."""
    scaling = RotaryScalingConfig(
        "longrope", original_max_positions=7, short_factors=(1.0,) * 3,
        long_factors=(9.0, 5.0, 3.0), attention_factor=1.3, reread_when_long=True,
    )  # fmt: skip
    config = replace(ONE_LAYER, rotary=RotaryConfig(scaling=scaling), query_scaling=5.0)
    params, ids = made(config), token_ids(config, 4, 5)
    rows = ids if given == "ids" else hidden(config, params, ids, method="embed")
    found = generate(Decoder(config), params, max_new_tokens=8, **{given: rows})
    wanted = naive(config, params, np.asarray(ids), 8)
    np.testing.assert_array_equal(found.tokens, wanted)
    keeps = replace(config, rotary=RotaryConfig(scaling=replace(scaling, reread_when_long=False)))
    other = generate(Decoder(keeps), params, ids, max_new_tokens=8)
    assert np.any(np.asarray(other.tokens) != np.asarray(wanted))


def test_a_prefix_model_sees_its_whole_prompt():
    config = replace(ONE_LAYER, attention_mask="prefix")
    params, ids = made(config), token_ids(config, 1, 4)
    found = generate(
        Decoder(config), params, ids, inputs_indicator=np.ones((1, 4), int), max_new_tokens=3
    )
    indicator = np.array([[1] * 4 + [0] * 3])
    wanted = naive(config, params, np.asarray(ids), 3, inputs_indicator=indicator)
    np.testing.assert_array_equal(found.tokens, wanted)


def test_samples_follow_the_distribution_of_the_first_token():
    rows = 4000
    params = made(ONE_LAYER)
    prompt = np.asarray(token_ids(ONE_LAYER, 1, 4))
    sampling = SamplingConfig(temperature=0.8, top_k=5)
    found = generate(
        Decoder(ONE_LAYER), params, np.broadcast_to(prompt, (rows, 4)), max_new_tokens=1,
        sampling=sampling, rng=jax.random.key(3),
    )  # fmt: skip
    last = np.asarray(hidden(ONE_LAYER, params, prompt))[:, -1:]
    logits = hidden(ONE_LAYER, params, last, method="logits")
    shares = jax.jit(lambda logits: jax.nn.softmax(filtered(logits[0], sampling)))
    expected = rows * np.asarray(shares(logits))[0]
    counts = np.bincount(np.asarray(found.tokens)[:, 0], minlength=ONE_LAYER.vocab_size)
    kept = expected > 0
    assert kept.sum() == 5
    assert counts[~kept].sum() == 0
    # 4 degrees of freedom pass 33.4 once in a million seeds
    assert np.sum((counts[kept] - expected[kept]) ** 2 / expected[kept]) < 33.4


def test_the_key_decides_and_steps_draw_apart():
    params, ids = made(ONE_LAYER), token_ids(ONE_LAYER, 2, 4)
    hot = SamplingConfig(temperature=50.0)  # nearly uniform

    def run(seed):
        return np.asarray(
            generate(
                Decoder(ONE_LAYER), params, ids, max_new_tokens=12, sampling=hot,
                rng=jax.random.key(seed),
            ).tokens
        )  # fmt: skip

    np.testing.assert_array_equal(run(0), run(0))
    assert not np.array_equal(run(0), run(1))
    assert len(np.unique(run(0)[0])) > 4


@pytest.mark.parametrize(
    ("config", "arguments", "sentence"),
    [
        (LLAMA, {"max_new_tokens": 0}, "max_new_tokens: expected at least 1, found 0"),
        (
            replace(GPT, max_positions=6),
            {"max_new_tokens": 3},
            r"max_new_tokens: 4 \+ 3 tokens, max_positions is 6",
        ),
        (
            LLAMA,
            {"max_new_tokens": 1, "sampling": SamplingConfig(temperature=1.0)},
            "rng: sampling needs a key, found None",
        ),
        (
            LLAMA,
            {"max_new_tokens": 1, "eos_id": 31},
            r"eos_id: found 31, expected in \[0, 31\), a word",
        ),
        (
            LLAMA,
            {"max_new_tokens": 1, "pad_id": 99},
            r"pad_id: found 99, expected in \[0, 31\), a word",
        ),
        (LLAMA, {"max_new_tokens": 1.5}, "max_new_tokens: expected at least 1, found 1.5"),
        (
            LLAMA,
            {"max_new_tokens": 1, "paddings": np.ma.array([[1, 0, 0, 0]], mask=[[0, 1, 0, 0]])},
            "paddings: a masked array",
        ),
    ],
)
def test_what_cannot_be_generated_is_refused(config, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        generate(Decoder(config), {}, token_ids(config, 1, 4), **arguments)


def test_all_that_is_wrong_with_a_prompt_is_said_at_once():
    """Before anything is looked up: JAX would make 5 of 2**32 + 5, and zeros of a word 31."""
    ids = np.array([[1, 31, -1, 2**32 + 5], [2, 3, 4, 99]])
    paddings = np.array([[0, 0, 0, 0], [0, 0, 0, 1]])  # 99 is padding: not looked at
    with pytest.raises(ValueError) as caught:
        generate(
            Decoder(LLAMA), {}, ids, paddings, max_new_tokens=3, eos_id=(1, -2, 40),
            pad_id=99, sampling=SamplingConfig(temperature=1.0),
        )  # fmt: skip
    assert str(caught.value).splitlines() == [
        "generate: 4 problems:",
        "  ids: found 31 at [0, 1], -1 at [0, 2], 4294967301 at [0, 3], expected in [0, 31),"
        " a word",
        "  rng: sampling needs a key, found None",
        "  eos_id: found -2, 40, expected in [0, 31), a word",
        "  pad_id: found 99, expected in [0, 31), a word",
    ]


@pytest.mark.parametrize("eos_id", [np.int64(5), np.array([5, 6]), [5]])
def test_ends_may_be_numbers_of_numpy(eos_id):
    params, ids = made(ONE_LAYER), token_ids(ONE_LAYER, 1, 3)
    found = generate(
        Decoder(ONE_LAYER), params, ids, max_new_tokens=1, eos_id=eos_id, pad_id=np.int32(0)
    )  # fmt: skip
    assert found.tokens.shape == (1, 1)


def test_a_prompt_without_tokens_is_refused():
    with pytest.raises(ValueError, match="prompts without a single token"):
        generate(Decoder(LLAMA), {}, np.zeros((1, 0), int), max_new_tokens=1)
