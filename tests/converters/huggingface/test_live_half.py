"""In bfloat16 each family rounds where its class in transformers does: bit for bit.

The operations run one by one on both sides; a compiled program may keep more bits in between. Needs
torch and transformers.
"""

from importlib import import_module
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from efficientids_flax.backbone import Decoder, layers
from efficientids_flax.backbone.layers import Norm
from efficientids_flax.backbone.positions.rotary import rotate, turn
from efficientids_flax.backbone.presets.read import config_of

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from tests.converters.huggingface import live_models as live

SIZES = {
    "vocab_size": 64, "hidden_size": 48, "intermediate_size": 8, "num_hidden_layers": 1,
    "num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 16, "pad_token_id": 0,
    "max_position_embeddings": 64, "layer_types": ["full_attention"],
}  # fmt: skip
NORMED = [
    "llama",
    "qwen3",
    "gemma",
    "gemma2",
    "olmo2",
    "granite",
    "olmo3",
    "exaone4",
    "cohere",
]


def pair(kind: str) -> tuple[Any, Any]:
    """(model in bfloat16, our configuration)."""
    model = live.make_model(kind, SIZES, 0).bfloat16()
    values = {**model.config.to_dict(), "dtype": "bfloat16", "model_type": kind}
    return model, config_of(values)


def bits(value: Any) -> np.ndarray:
    """The numbers of a bfloat16 array or tensor, as they are stored."""
    if isinstance(value, torch.Tensor):
        return value.detach().view(torch.int16).numpy()
    assert value.dtype == jnp.bfloat16
    return np.asarray(value).view(np.int16)


def drawn(*shape: int) -> tuple[Any, Any]:
    """The same random numbers for both libraries."""
    values = np.random.default_rng(0).normal(0, 3, shape).astype(np.float32)
    return torch.tensor(values).bfloat16(), jnp.asarray(values).astype(jnp.bfloat16)


@pytest.mark.parametrize("kind", NORMED)
def test_norms(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # As on GPUs: on CPUs, a layer computes in float32 and rounds its result.
    monkeypatch.setattr(layers, "compute_dtype", lambda config: jnp.dtype(config.dtype))
    model, config = pair(kind)
    theirs, ours = drawn(50, 48)
    norm = model.model.norm
    scale = jnp.asarray(norm.weight.detach().float().numpy()).astype(jnp.bfloat16)
    found = Norm(config).apply({"params": {"scale": scale}}, ours)
    same = bits(found) == bits(norm(theirs))
    # The mean of 48 squares is summed in another order, which rarely changes the last bit.
    assert same.mean() > 0.999


@pytest.mark.parametrize("kind", ["gemma", "granite"])
def test_the_scale_of_word_embeddings(kind: str) -> None:
    model, config = pair(kind)
    table = model.get_input_embeddings().weight.detach().float().numpy()
    params = {"lm_head": {"kernel": jnp.asarray(table).astype(jnp.bfloat16)}}
    if not config.tied_embeddings:
        params["embedder"] = {"embedding": params["lm_head"]["kernel"]}
    ids = np.arange(64)[None]
    found = Decoder(config).apply({"params": params}, ids, method="embed")
    theirs = model.get_input_embeddings()(torch.tensor(ids))
    np.testing.assert_array_equal(bits(found), bits(theirs))


@pytest.mark.parametrize("kind", ["llama", "olmo2", "olmo", "glm"])
def test_rotation(kind: str) -> None:
    model, config = pair(kind)
    module = import_module(f"transformers.models.{kind}.modeling_{kind}")
    theirs, ours = drawn(1, 40, 3, 16)
    positions = np.arange(200, 240)[None]
    rotary = type(model.model.rotary_emb)(model.config)  # `bfloat16()` rounded the model's own
    cosine, sine = rotary(theirs, torch.tensor(positions))
    wanted, _ = module.apply_rotary_pos_emb(theirs.transpose(1, 2), theirs.transpose(1, 2),
                                            cosine, sine)  # fmt: skip
    assert config.rotary is not None
    found = rotate(ours, turn(config.rotary, 16, jnp.asarray(positions)), config.rotary)
    same = bits(found) == bits(wanted.transpose(1, 2).contiguous())
    # The libraries' sines differ in the last bit of float32, which rarely changes a value here.
    assert same.mean() > 0.99
