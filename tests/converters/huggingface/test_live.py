"""Every family against the real models of transformers: random settings, random weights.

The tests need torch and transformers.
"""

import copy
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.huggingface import load_pretrained_lm
from efficientids_flax.backbone import Decoder
from efficientids_flax.backbone.generate import generate
from efficientids_flax.backbone.masks import segments_from_positions
from tests.converters.huggingface.recorded_models import distance, forward

pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.converters.huggingface import live_models as live
from tests.converters.huggingface.live_dense import DENSE
from tests.converters.huggingface.live_mixtures import MIXTURES

LATER = {**DENSE, **MIXTURES}
KINDS = {**live.FAMILIES, **LATER}
UNPACKED = ("opt", "falcon", "gpt_oss")  # their masks see no positions
BOTH_WAYS = ("mistral", "smollm3", "gpt_neox", "bloom")  # all others have the same masks

# Of the largest magnitude. Both sides sum float32 in their own order; a few hundred roundings of
# 6e-8 each stay below, and the smallest of the mistakes that ports make is above 1e-4.
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def exact_products() -> Iterator[None]:
    with jax.default_matmul_precision("highest"):
        yield


def allowed(found: np.ndarray, exact: np.ndarray, where: np.ndarray) -> float:
    """The tolerance, or four times what the real model's own roundings make, where that is more.

    Some random models are ill-conditioned: a norm of what is nearly zero.
    """
    return max(TOLERANCE, 4 * distance(found, exact, where))


def check_forward(config: Any, params: Any, model: Any, seed: int) -> None:
    run = jax.jit(partial(forward, config))
    for case, inputs in live.cases(model, seed).items():
        shape = inputs["input_ids"].shape
        mask = inputs.get("attention_mask", np.ones(shape, np.int64))
        positions = np.broadcast_to(np.arange(shape[1]), shape)
        if config.positions_pass_padding:
            positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
        positions = inputs.get("position_ids", positions)
        # Positions that restart begin another text, if there is no mask and attention is causal.
        other = "attention_mask" not in inputs and model.config.model_type not in UNPACKED
        other &= getattr(model.config, "is_causal", True)
        segments = segments_from_positions(positions) if other else mask
        given = {"paddings": 1.0 - mask, "positions": positions, "segment_ids": segments}
        states, logits = run(params, ids=inputs["input_ids"], **given)
        expected = live.computed(model, **inputs)
        for number, (found, wanted) in enumerate(zip([*states, logits], expected, strict=True)):
            what = f"hidden state {number}" if number < len(states) else "logits"
            if found.shape != wanted.shape and number == len(states) - 1:
                continue  # theirs already has the width of the word embeddings
            error, limit = distance(found, wanted, mask > 0), TOLERANCE
            if error >= limit:
                known = live.computed(copy.deepcopy(model).double(), **inputs)[number]
                limit = allowed(wanted, known, mask > 0)
            assert error < limit, f"{case}: {what} off by {error:.1e}, {limit:.1e} allowed"


class FirstInput(Decoder):
    """A decoder that gives what its first layer would get."""

    def run_layers(self, x: jax.Array, *_: Any) -> tuple[jax.Array, None]:
        return x, None


def check_injection(config: Any, params: Any, model: Any, seed: int) -> None:
    """Behind the first layer's input, given embeddings and words take the same way."""
    rng = np.random.default_rng(seed)
    width = config.embedding_dims or config.model_dims
    embeds = rng.normal(size=(live.BATCH, live.TIME, width)).astype(np.float32)
    run = jax.jit(FirstInput(config).apply)
    expected = live.computed(model, inputs_embeds=embeds)
    assert distance(run({"params": params}, inputs_embeds=embeds), expected[0]) < TOLERANCE


def check_generation(config: Any, params: Any, model: Any, seed: int) -> None:
    ids = live.cases(model, seed)["full"]["input_ids"][:, -live.PROMPT :]
    mask = np.ones_like(ids)
    mask[1, :3] = 0
    wanted, lead = live.generated(model, ids, mask, live.NEW)
    found = generate(Decoder(config), params, ids, 1.0 - mask, max_new_tokens=live.NEW)
    for row, tokens in enumerate(np.asarray(found.tokens)):
        # After two logits that are equal except for rounding, the texts may differ.
        tied = np.flatnonzero(lead[row] < TOLERANCE)
        sure = tied[0] if len(tied) else live.NEW
        np.testing.assert_array_equal(tokens[:sure], wanted[row, :sure])


CHECKS = {"forward": check_forward, "injection": check_injection, "generation": check_generation}
Random = settings(derandomize=True, deadline=None, database=None)


def check(kind: str, data: st.DataObject, *names: str, **keys: Any) -> None:
    """Compare a random model with ours; `keys`: settings that every class has."""
    chosen = data.draw(live.settings_of(KINDS[kind]), "settings")
    seed, scan = data.draw(st.integers(0, 999), "seed"), data.draw(st.booleans(), "scan")
    model = live.make_model(kind, chosen, seed)
    for name, value in keys.items():
        setattr(model.config, name, value)
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        config, params = load_pretrained_lm(Path(folder), "float32", scan_layers=scan)
        for name in names:
            CHECKS[name](config, params, model, seed)


@pytest.mark.parametrize("kind", live.FAMILIES)
@settings(Random, max_examples=2)
@given(data=st.data())
def test_hidden_states_and_logits(kind: str, data: st.DataObject) -> None:
    check(kind, data, "forward", "injection")


@pytest.mark.parametrize("kind", LATER)
@settings(Random, max_examples=1)
@given(data=st.data())
def test_hidden_states_and_logits_with_everything_on(kind: str, data: st.DataObject) -> None:
    check(kind, data, "forward", "injection")


# Windows in all layers, in some, in layers without rotary positions; none; ALiBi.
@pytest.mark.parametrize("kind", BOTH_WAYS)
@settings(Random, max_examples=1)
@given(data=st.data())
def test_without_causality_tokens_see_later_ones(kind: str, data: st.DataObject) -> None:
    check(kind, data, "forward", is_causal=False)


@pytest.mark.parametrize("kind", live.FAMILIES)
@settings(Random, max_examples=1)
@given(data=st.data())
def test_greedy_generation(kind: str, data: st.DataObject) -> None:
    check(kind, data, "generation")


SHARE = {
    "rope_type": "proportional",
    "rope_theta": 300.0,
    "partial_rotary_factor": 0.6,
    "factor": 2.0,
}
SHARES = {
    "qwen3": SHARE,
    "gemma3_text": {
        "full_attention": SHARE,
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    },
}


@pytest.mark.parametrize("kind", SHARES)
def test_a_share_of_the_pairs_turns(kind: str) -> None:
    sizes = {
        "vocab_size": 37, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 12, "intermediate_size": 20, "pad_token_id": 0,
    }  # fmt: skip
    types = {"layer_types": ["full_attention", "sliding_attention"]} if kind != "qwen3" else {}
    model = live.make_model(kind, {**sizes, **types, "rope_parameters": SHARES[kind]}, 0)
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        config, params = load_pretrained_lm(Path(folder), "float32")
    ids = live.cases(model, 0)["full"]["input_ids"]
    found = jax.jit(partial(forward, config))(params, ids=ids)[1]
    assert distance(found, live.computed(model, input_ids=ids)[-1]) < TOLERANCE


def test_falcons_biases_are_those_of_pytorchs_kernel() -> None:
    """The default of transformers; its eager attention adds the biases twice."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    made = transformers.FalconConfig(
        vocab_size=41, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, alibi=True,
        multi_query=False, parallel_attn=False, bias=True,
    )  # fmt: skip
    model = transformers.FalconForCausalLM._from_config(made, attn_implementation="sdpa").eval()
    live.scatter(model, "falcon")
    ids = np.random.default_rng(0).integers(3, 41, (1, 260))  # bfloat16 counts to 256
    with TemporaryDirectory() as folder, torch.no_grad():
        model.save_pretrained(folder)
        config, params = load_pretrained_lm(Path(folder), "float32")
        wanted = model(torch.tensor(ids)).logits.numpy()
    found = jax.jit(partial(forward, config))(params, ids=ids)[1]
    assert distance(found, wanted) < TOLERANCE
