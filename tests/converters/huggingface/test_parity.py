"""Every family computes what transformers computes: hidden states, logits, loss, gradients."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from converters.huggingface import load_pretrained_lm
from efficientids_flax.backbone import Decoder
from efficientids_flax.backbone.generate import generate
from efficientids_flax.config import BackboneConfig
from tests.converters.huggingface.recorded_models import (
    FOLDERS,
    NAMES,
    cases,
    context,
    distance,
    forward,
    mean_cross_entropy,
    reference,
)

# Of the largest magnitude. Both sides sum float32 in their own order; a few hundred roundings of
# 6e-8 each stay below, and the smallest of the mistakes that ports make is above 1e-4.
TOLERANCE = 1e-5
SCANNED = (
    "gemma2",
    "gpt2",
    "gpt2_by_layer",
    "llama",
    "phi3",
    "smollm3",
)  # one for each pattern of layers


@pytest.fixture(autouse=True)
def exact_products() -> Iterator[None]:
    with jax.default_matmul_precision("highest"):
        yield


def computed(
    config: BackboneConfig, params: Any, labels: np.ndarray
) -> Callable[..., tuple[list[jax.Array], jax.Array, jax.Array, jax.Array]]:
    """Compiles once: embeddings -> hidden states, logits, loss, the loss's gradient."""

    def loss(embeds: jax.Array, given: Any) -> tuple[jax.Array, tuple[list[jax.Array], jax.Array]]:
        states, logits = forward(config, params, inputs_embeds=embeds, **given)
        return mean_cross_entropy(logits, labels), (states, logits)

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))

    def everything(
        embeds: jax.Array, given: Any
    ) -> tuple[list[jax.Array], jax.Array, jax.Array, jax.Array]:
        (value, (states, logits)), gradient = run(embeds, given)
        return states, logits, value, gradient

    return everything


def word_embeddings(config: BackboneConfig, params: Any, ids: np.ndarray) -> jax.Array:
    """Word embeddings in the form in which the decoder accepts them as inputs."""
    as_injected = replace(config, embedding_scale="none")
    decoder = Decoder(as_injected if config.scale_injected_embeddings else config)
    return jax.jit(partial(decoder.apply, method="embed"))({"params": params}, ids)  # pyright: ignore


@pytest.mark.parametrize("name", NAMES)
def test_hidden_states_logits_and_gradients_are_those_of_transformers(name: str) -> None:
    recorded = reference(name)
    config, params = load_pretrained_lm(FOLDERS / name, "float32", scan_layers=name in SCANNED)
    run = computed(config, params, recorded["inject/labels"])
    words = word_embeddings(config, params, recorded["input_ids"].astype(np.int32))
    for case in cases(recorded):
        given = context(recorded, case, config)
        states, logits, _, _ = run(words, given)
        seen = given["paddings"] == 0
        if f"{case}/hidden_states" in recorded:
            pairs = zip(states, recorded[f"{case}/hidden_states"], strict=True)
            for layer, (found, wanted) in enumerate(pairs):
                assert distance(found, wanted, seen) < TOLERANCE, f"{case}: hidden state {layer}"
        assert distance(logits, recorded[f"{case}/logits"], seen) < TOLERANCE, case

    injected = jnp.asarray(recorded["inject/inputs_embeds"])
    if injected.shape != words.shape:  # embeddings of another width are given before the projection
        narrow = params["embedding_projection"]["kernel"]
        injected = injected @ narrow.T
    states, logits, loss, gradient = run(injected, context(recorded, "full", config))
    if injected.shape != recorded["inject/inputs_embeds"].shape:
        gradient = gradient @ narrow
    if "inject/hidden_states" in recorded:
        for found, wanted in zip(states, recorded["inject/hidden_states"], strict=True):
            assert distance(found, wanted) < TOLERANCE
    assert distance(logits, recorded["inject/logits"]) < TOLERANCE
    np.testing.assert_allclose(loss, recorded["inject/loss"], rtol=1e-6)
    assert distance(gradient, recorded["inject/grad_inputs_embeds"]) < TOLERANCE


@pytest.mark.parametrize("name", ["gemma", "granite", "llama", "opt_narrow"])
def test_ids_are_their_embeddings(name: str) -> None:
    config, params = load_pretrained_lm(FOLDERS / name, "float32")
    ids = reference(name)["input_ids"].astype(np.int32)
    states, logits = jax.jit(partial(forward, config))(params, ids=ids)
    recorded = reference(name)
    for found, wanted in zip(states, recorded.get("full/hidden_states", states), strict=True):
        assert distance(found, np.asarray(wanted)) < TOLERANCE
    assert distance(logits, recorded["full/logits"]) < TOLERANCE


# Learned positions, windows, both rotations of Gemma3, LongRoPE past its length, parallel layers,
# positions of tokens, layers that are not turned, experts, biases by distance.
@pytest.mark.parametrize(
    "name",
    [
        "gpt2",
        "gpt2_by_layer",
        "mistral",
        "gemma3_text",
        "phi3",
        "gpt_neox",
        "opt_narrow",
        "cohere2",
        "qwen2_moe",
        "bloom",
    ],
)
def test_greedy_generation_after_padding(name: str) -> None:
    recorded = reference(name)
    config, params = load_pretrained_lm(FOLDERS / name, "float32")
    prompt = recorded["left/input_ids"].astype(np.int32)
    wanted = recorded["left/generate"][:, prompt.shape[1] :]
    found = generate(
        Decoder(config),
        params,
        jnp.asarray(prompt),
        jnp.asarray(1 - recorded["left/attention_mask"]),
        max_new_tokens=wanted.shape[1],
    )
    np.testing.assert_array_equal(found.tokens, wanted)


@pytest.mark.parametrize("name", ["gemma", "granite"])
def test_word_embeddings_of_the_decoder_are_what_is_injected(name: str) -> None:
    """Without items, the injected rows are those of the table; for Gemma without its factor."""
    recorded = reference(name)
    config, params = load_pretrained_lm(FOLDERS / name, "float32")
    table = params["lm_head"]["kernel"] if config.tied_embeddings else params["embedder"]
    words = ~recorded["inject/item_mask"]
    rows = np.asarray(table[recorded["input_ids"]])
    np.testing.assert_array_equal(rows[words], recorded["inject/inputs_embeds"][words])


def test_bfloat16_computes_in_bfloat16() -> None:
    config, params = load_pretrained_lm(FOLDERS / "qwen3")
    assert (config.dtype, config.param_dtype) == ("bfloat16", "bfloat16")
    recorded = reference("qwen3")
    run = jax.jit(partial(forward, config))
    states, logits = run(params, ids=recorded["input_ids"].astype(np.int32))
    assert all(state.dtype == jnp.bfloat16 for state in states)
    # 8 bits, about ten roundings per layer
    assert 1e-4 < distance(logits, recorded["full/logits"]) < 0.1
