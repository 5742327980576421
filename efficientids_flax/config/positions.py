"""How positions enter: rotary positions and their scaling, T5's relative bias, linear biases.

Letters: N heads, H head width.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from efficientids_flax.config.record import Record, positive


@dataclass(frozen=True)
class RotaryScalingConfig(Record):
    """Scaling of the rotary frequencies for long contexts, with HuggingFace's names of methods.

    `attention_factor` multiplies cos and sin; None means the method's own rule (yarn, longrope; the
    others have none). The `*_freq_factor` belong to `llama3`; the betas, `mscale*` and `truncate`
    to `yarn`; `*_factors` (one per pair) to `longrope`. `share` belongs to `proportional`: only
    this share of the pairs is rotated, the fastest ones. `original_max_positions` is the length
    of training; for `dynamic` it is HuggingFace's `max_position_embeddings`. `dynamic` and
    `longrope` depend on the longest position of the whole batch. `reread_when_long`: if a text
    outgrows that length during generation, it is read again with the long factors (Phi-3);
    otherwise keys keep the rotation they have (all other classes of HuggingFace).
    """

    kind: Literal["linear", "dynamic", "llama3", "yarn", "longrope", "proportional"]
    factor: float = 1.0
    original_max_positions: int | None = None
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    attention_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True
    share: float = 1.0
    short_factors: tuple[float, ...] = ()
    long_factors: tuple[float, ...] = ()
    reread_when_long: bool = False

    def problems(self) -> Collection[str]:
        """Factors are positive; fields that a method needs are set."""
        found = positive(
            self, "factor", "original_max_positions", "attention_factor", "low_freq_factor",
            "high_freq_factor", "beta_fast", "beta_slow",
        )  # fmt: skip
        if not 0 <= self.share <= 1:
            found.append(f"share: expected in [0, 1], found {self.share}")
        unstretched = ("linear", "proportional")
        if self.kind not in unstretched and self.original_max_positions is None:
            found.append(f"original_max_positions: {self.kind} scaling needs it, found null")
        if self.kind in (*unstretched, "dynamic", "llama3") and self.attention_factor is not None:
            found.append(f"attention_factor: {self.kind} scaling has none")
        if self.kind == "llama3" and self.low_freq_factor == self.high_freq_factor:
            found.append("low_freq_factor, high_freq_factor: expected different numbers")
        if self.kind == "longrope" and not (self.short_factors and self.long_factors):
            found.append("short_factors, long_factors: longrope scaling needs both")
        return found


@dataclass(frozen=True)
class RotaryConfig(Record):
    """Rotary positions: pair i is rotated by position / (min (max / min)^(2i / width)).

    Attributes:
        pairing: 'half_split' rotates (x[i], x[i + width/2]) (Praxis `RotaryPositionalEmbedding`,
            HuggingFace); 'interleaved' rotates (x[2i], x[2i + 1]) (`LLaMARotaryEmbedding`).
        min_timescale, max_timescale: if the first is 1, the second is the base ("theta").
        fraction: share of the head width that is rotated; the rest passes through. With
            `by_frequency`, an odd width is rounded up (HuggingFace; not with all scaling methods).
        in_float32: cos and sin stay float32 until after the product (HuggingFace casts them first).
        by_frequency: angles are positions times frequencies (HuggingFace; always with `scaling`),
            not positions by time scales (Praxis): at position p they differ by p 1e-7.
    """

    pairing: Literal["half_split", "interleaved"] = "half_split"
    min_timescale: float = 1.0
    max_timescale: float = 10_000.0
    fraction: float = 1.0
    in_float32: bool = True
    by_frequency: bool = False
    scaling: RotaryScalingConfig | None = None

    def problems(self) -> Collection[str]:
        """Time scales are positive and the fraction is in (0, 1]."""
        found = positive(self, "min_timescale", "max_timescale", "fraction")
        if self.fraction > 1:
            found.append(f"fraction: expected at most 1, found {self.fraction}")
        return found


@dataclass(frozen=True)
class PositionScalingConfig(Record):
    """Queries at position p are multiplied by 1 + beta log(1 + floor(p / length)) (Llama 4).

    Attributes:
        beta: how fast queries grow.
        length: length of the training texts; queries at positions below it are unchanged.
    """

    beta: float
    length: int

    def problems(self) -> Collection[str]:
        """The length is positive."""
        return positive(self, "length")


@dataclass(frozen=True)
class RelativeBiasConfig(Record):
    """T5-like relative position bias [N, num_buckets] on the attention logits, before their cap.

    `use_length_as_position`: in training, distances count places of the row, not of the segment.
    """

    num_buckets: int
    max_distance: int = 128
    bidirectional: bool = False
    use_length_as_position: bool = True

    def problems(self) -> Collection[str]:
        """Each direction has a near bucket; the far buckets begin after the near ones."""
        found = positive(self, "num_buckets", "max_distance")
        directions = 2 if self.bidirectional else 1
        near = self.num_buckets // directions // 2
        if not found and not near:
            found.append(
                f"num_buckets: expected at least {2 * directions}, found {self.num_buckets}"
            )
        elif not found and self.max_distance <= near:
            found.append(
                f"max_distance: expected above the {near} near buckets, found {self.max_distance}"
            )
        return found


@dataclass(frozen=True)
class AlibiConfig(Record):
    """Linear biases on the attention logits (arXiv 2108.12409), see `backbone.positions.alibi`.

    Attributes:
        max_bias: slopes go from 2^(-max_bias / N) for the first head to 2^-max_bias for the last.
        scale: factor of the biases (Falcon adds them to logits before these are scaled).
        in_bfloat16: slopes, positions and their product are rounded to bfloat16 (Falcon).
    """

    max_bias: float = 8.0
    scale: float = 1.0
    in_bfloat16: bool = False

    def problems(self) -> Collection[str]:
        """`max_bias` is positive."""
        return positive(self, "max_bias")
