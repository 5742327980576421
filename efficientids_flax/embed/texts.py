"""Embeds texts: tokens, batches of texts of similar length, and resuming after a kill.

Letters: I texts, B of them in a batch, T tokens, D model width.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from efficientids_flax.digests import digest_of
from efficientids_flax.embed.encoders import POOLINGS, Encoder
from efficientids_flax.embed.output import Output
from efficientids_flax.text import first_of

KEPT_EVERY = 5.0  # seconds between saves; a kill loses this, and the batch being computed


@dataclass(frozen=True)
class TextOptions:
    """How to embed texts.

    Attributes:
        pooling: 'mean' of the tokens' hidden states, or that of the 'last' token.
        max_length: most tokens of a text; its end is cut off. None: 512, or the model's limit.
        prefix: text to put before every text, as some models expect.
        normalize: scale vectors to length one.
        batch_size: B.
    """

    pooling: str = "mean"
    max_length: int | None = None
    prefix: str = ""
    normalize: bool = False
    batch_size: int = 32

    def __post_init__(self) -> None:
        problems = [
            f"{name}: expected 1 or more, found {value}"
            for name in ("max_length", "batch_size")
            if (value := getattr(self, name)) is not None and value < 1
        ]
        if self.pooling not in POOLINGS:
            problems.append(f"pooling: found {self.pooling!r}, there are {', '.join(POOLINGS)}")
        if problems:
            raise ValueError("\n  ".join(problems))


class Embedded(NamedTuple):
    """What was done.

    Attributes:
        without_text: items without a text; their vectors are zeros.
        cut: number of texts that were truncated.
        resumed: number of batches that were already done.
        batches: number of all batches.
    """

    without_text: list[int]
    cut: int
    resumed: int
    batches: int

    def notes(self) -> list[str]:
        """Notes for people."""
        found = []
        if self.without_text:
            rows = self.without_text
            found.append(f"{len(rows)} items without text have zeros ({first_of(rows)})")
        if self.cut:
            found.append(f"{self.cut} texts were cut to the longest length")
        if self.resumed:
            found.append(f"{self.resumed} of {self.batches} batches were there already")
        return found


def embed_texts(
    texts: Sequence[str | None],
    tokenizer: Any,
    encoder: Encoder,
    output: Output,
    options: TextOptions,
    about: dict[str, Any],
    tell: Callable[[int, int], None] | None = None,
) -> Embedded:
    """Write the vectors of texts. A killed run is resumed and ends with the same bytes.

    Args:
        texts: text of each item, or None.
        tokenizer: a tokenizer of transformers, which adds its usual special tokens.
        encoder: the model.
        output: the file to write.
        options: see `TextOptions`.
        about: further values for `embeddings.json`.
        tell: called with (batches done, batches) after each batch.

    Raises:
        ValueError: no item has a text; there are tokens that the model does not know; there is a
            partial file of another run, see `Output.begin`.
    """
    longest = options.max_length or min(512, encoder.most or 512)
    if encoder.most is not None and longest > encoder.most:
        raise ValueError(f"max_length: found {longest}, the model takes {encoder.most} tokens")
    tokens, cut = _tokens(texts, tokenizer, options.prefix, longest)
    without = [item for item, ids in enumerate(tokens) if not ids]
    if len(without) == len(tokens):
        raise ValueError("no item has a text")
    if (largest := max(max(ids, default=0) for ids in tokens)) >= encoder.words:
        raise ValueError(
            f"tokenizer: gives token {largest}, and the model knows those below {encoder.words};"
            " give the tokenizer that the model was trained with"
        )
    batches = batches_of([len(ids) for ids in tokens], options.batch_size)
    made_of = {**asdict(options), "max_length": longest, "model": dict(encoder.about),
               "texts": digest_of(tokens)}  # fmt: skip
    rows, resumed = output.begin((len(texts), encoder.width), made_of)
    kept = time.monotonic()
    for number, items in enumerate(batches[resumed:], start=resumed + 1):
        rows[items] = _vectors([tokens[item] for item in items], encoder, options, longest)
        if time.monotonic() - kept > KEPT_EVERY:
            output.keep(rows, number, made_of)
            kept = time.monotonic()
        if tell is not None:
            tell(number, len(batches))
    rows.flush()
    del rows
    found = Embedded(without, cut, resumed, len(batches))
    output.finish({
        "method": "text", **about, **{key: made_of[key] for key in made_of if key != "texts"},
        "without_text": {"count": len(without), "items": without[:100]}, "cut": cut,
        "items": len(texts), "width": encoder.width,
    })  # fmt: skip
    return found


def batches_of(lengths: Sequence[int], batch_size: int) -> list[np.ndarray]:
    """Batches of items of similar length, longest first; items without tokens are left out."""
    order = np.lexsort((np.arange(len(lengths)), -np.asarray(lengths)))
    order = order[np.asarray(lengths)[order] > 0]
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def room_for(length: int, most: int) -> int:
    """Padded length of a batch: 16, 24, 32, 48 and so on, so that few shapes are compiled."""
    room = 16
    while room < length:
        room = room * 3 // 2 if room & (room - 1) == 0 else room * 4 // 3
    return max(min(room, most), length)


def _tokens(
    texts: Sequence[str | None], tokenizer: Any, prefix: str, longest: int
) -> tuple[list[list[int]], int]:
    """(Tokens of each text, empty without a text; how many texts were truncated)."""
    there = [item for item, text in enumerate(texts) if text]
    if not there:
        return [[] for _ in texts], 0
    found = tokenizer([prefix + str(texts[item]) for item in there], verbose=False)["input_ids"]
    limited = found
    if any(len(ids) > longest for ids in found):  # the tokenizer keeps its end token
        limited = tokenizer([prefix + str(texts[item]) for item in there], truncation=True,
                            max_length=longest)["input_ids"]  # fmt: skip
    tokens: list[list[int]] = [[] for _ in texts]
    for item, ids in zip(there, limited, strict=True):
        tokens[item] = list(ids)
    return tokens, sum(len(ids) > longest for ids in found)


def _vectors(
    tokens: list[list[int]], encoder: Encoder, options: TextOptions, longest: int
) -> np.ndarray:
    """Vectors of one batch, float32 [B, D]; the batch is padded to a fixed size to compile once."""
    ids = np.zeros((options.batch_size, room_for(len(tokens[0]), longest)), np.int32)
    lengths = np.ones(options.batch_size, np.int32)
    for row, text in enumerate(tokens):
        ids[row, : len(text)] = text
        lengths[row] = len(text)
    found = encoder.encode(ids, lengths, options.pooling)[: len(tokens)]
    if options.normalize:
        found = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
    return found
