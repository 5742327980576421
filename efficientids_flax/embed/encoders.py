"""Encoders of tokens into one vector per text: our decoder, or any model of transformers.

Letters: B texts, T tokens, D model width.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.backbone import Decoder
from efficientids_flax.digests import digest, digest_of
from efficientids_flax.tree import flatten

POOLINGS = ("mean", "last")


class Encoder(Protocol):
    """Maps tokens to vectors.

    Attributes:
        width: D.
        words: V, size of its vocabulary.
        most: most tokens of a text; None: any number.
        about: description as JSON values: `engine`, `family`, `weights` (a digest).
    """

    width: int
    words: int
    most: int | None
    about: Mapping[str, Any]

    def encode(self, ids: np.ndarray, lengths: np.ndarray, pooling: str) -> np.ndarray:
        """Encode texts, float32 [B, D].

        Args:
            ids: int32 [B, T], padded at the end.
            lengths: int [B], tokens of each text.
            pooling: one of `POOLINGS`.
        """
        ...


@partial(jax.jit, static_argnames="pooling")
def pooled(
    hidden: jax.Array | np.ndarray, lengths: jax.Array | np.ndarray, pooling: str
) -> jax.Array:
    """Pool hidden states [B, T, D] over the tokens of each text, without padding: float32 [B, D].

    'mean' is their mean, 'last' the last one; zeros for texts without tokens.
    """
    hidden = hidden.astype(jnp.float32)
    there = jnp.arange(hidden.shape[1]) < lengths[:, None]  # [B, T]
    if pooling == "last":
        there &= jnp.arange(hidden.shape[1]) == lengths[:, None] - 1
    summed = jnp.sum(jnp.where(there[..., None], hidden, 0.0), axis=1)
    return summed / jnp.maximum(jnp.sum(there, axis=1), 1)[:, None]


class DecoderEncoder:
    """A `Decoder` of this package; see `Encoder`."""

    def __init__(self, decoder: Decoder, params: Mapping[str, Any]) -> None:
        config = decoder.config
        self.width = config.model_dims
        self.words = config.vocab_size
        self.most = config.max_positions
        leaves = {name: digest(leaf) for name, leaf in flatten(params).items()}
        self.about: Mapping[str, Any] = {
            "engine": "flax",
            "dtype": config.dtype,
            "weights": digest_of({"config": config.to_dict(), "leaves": leaves}),
        }
        self._params = jax.device_put(params)

        @partial(jax.jit, static_argnames="pooling")
        def run(params: Any, ids: jax.Array, lengths: jax.Array, pooling: str) -> jax.Array:
            paddings = (jnp.arange(ids.shape[1]) >= lengths[:, None]).astype(jnp.float32)
            hidden = decoder.apply({"params": params}, ids, paddings=paddings)
            return pooled(hidden, lengths, pooling)

        self._run = run

    def encode(self, ids: np.ndarray, lengths: np.ndarray, pooling: str) -> np.ndarray:
        """See `Encoder`."""
        return np.asarray(self._run(self._params, ids, np.asarray(lengths, np.int32), pooling))


class TransformersEncoder:
    """Any model that `transformers` opens with `AutoModel`, in PyTorch; see `Encoder`.

    Of an encoder-decoder model it uses the encoder.

    Raises:
        ImportError: transformers or PyTorch is missing.
        ValueError: the folder holds no such model.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        try:
            import torch
            from transformers import AutoModel
        except ImportError as error:
            raise ImportError(
                "engine transformers needs it and PyTorch: pip install 'efficientids-flax[hf]'"
                " torch"
            ) from error
        try:
            model: Any = AutoModel.from_pretrained(
                folder, local_files_only=True, dtype=torch.float32
            )
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder}: transformers cannot open it: {error}") from error
        config = getattr(model.config, "text_config", model.config)
        if config.is_encoder_decoder:
            model = model.get_encoder()
        self._model = model.eval()
        self.width = int(config.hidden_size)
        self.words = int(config.vocab_size)
        self.most = getattr(config, "max_position_embeddings", None)
        for name, part in model.named_modules():
            before = getattr(part, "padding_idx", None)
            if name.endswith("position_embeddings") and before is not None:
                self.most = part.num_embeddings - before - 1  # RoBERTa's positions start after it
        leaves = {name: digest(leaf.numpy()) for name, leaf in model.state_dict().items()}
        self.about: Mapping[str, Any] = {
            "engine": "transformers",
            "dtype": "float32",
            "weights": digest_of({"family": config.model_type, "leaves": leaves}),
        }

    def encode(self, ids: np.ndarray, lengths: np.ndarray, pooling: str) -> np.ndarray:
        """See `Encoder`."""
        import torch

        there = np.arange(ids.shape[1]) < lengths[:, None]
        with torch.no_grad():
            hidden = self._model(
                input_ids=torch.from_numpy(ids.astype(np.int64)),
                attention_mask=torch.from_numpy(there.astype(np.int64)),
            ).last_hidden_state.numpy()
        return np.asarray(pooled(hidden, lengths, pooling))


def folder_name(path: str | os.PathLike[str]) -> str:
    """The name of a model's folder, without its path; other names, as of a cache, as they are."""
    found = Path(path)
    return found.resolve().name if found.is_dir() else os.fspath(path)
