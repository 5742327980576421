"""The changes to try: other values of settings whose value is only assumed.

A move sets one key to another value. Values that would need other parameters are no moves.
"""

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from efficientids_flax.config import EfficientIDSConfig
from efficientids_flax.settings import OPEN, is_assumed, open_settings, value_at, with_values
from efficientids_flax.settings.table import BACKBONE, ModelConfig

# Unless these are right, no other setting makes a difference: all their combinations come first.
GROSS = (
    "position_embedding", "rotary", "norm_scale_plus_one", "embedding_scale", "norm_policy",
    "parallel_residual",
)  # fmt: skip
GROSS_VALUES = {"activation": ("relu", "gelu_tanh", "silu")}  # stand for all values in combinations
MOST = 512  # limit on combinations


@dataclass(frozen=True)
class Choice:
    """A setting that may change.

    Attributes:
        key: dotted name.
        values: possible values: the assumed one, then those of the table, likeliest first.
    """

    key: str
    values: tuple[Any, ...]


def choices(
    config: ModelConfig,
    origins: Mapping[str, str],
    *,
    also: Iterable[str] = (),
    without: Mapping[str, Iterable[Any]] | None = None,
) -> list[Choice]:
    """The assumed settings that affect the forward pass, with the values to try.

    Args:
        config: configuration with assumed values.
        origins: dotted key -> origin.
        also: keys that are tried although their value is known.
        without: key -> values to leave out.

    Raises:
        ValueError: `also` names a setting that cannot be tried.
    """
    table = open_settings(config)
    # Add settings that exist only under another value, such as the time scales of rotary positions.
    for row in list(table.values()):
        key = BACKBONE + row.key if BACKBONE + row.key in table else row.key
        for value in row.values if key in table else ():
            made = with_values(config, {key: value})
            table |= {} if made is None else open_settings(made)
    if unknown := [key for key in also if key not in table]:
        raise ValueError(
            f"{', '.join(unknown)}: cannot be tried; of this model can be: {', '.join(table)}"
        )
    found = []
    for key, row in table.items():
        if row.affects != "forward" or not (key in also or is_assumed(config, key, row, origins)):
            continue
        now = value_at(config, key)
        rest = [value for value in row.values if not matches(config, key, value)]
        barred = list((without or {}).get(key, ()))
        values = tuple(value for value in (now, *rest) if value not in barred or value == now)
        found.append(Choice(key, values))
    return found


def unusable(
    config: ModelConfig, fields: Container[str], length: int, *, causal: bool = False
) -> dict[str, list[Any]]:
    """Values that a batch cannot judge: key -> values.

    Args:
        config: configuration of the model.
        fields: names of the batch's fields.
        length: T of the batch; a window at least as long hides nothing.
        causal: whether each label is the next input. A mask that sees ahead then predicts it
            without having learned anything.
    """
    prefix = BACKBONE if isinstance(config, EfficientIDSConfig) else ""
    windows = next(row.values for row in OPEN if row.key == "sliding_window")
    masks = ["bidirectional", "prefix"] if causal else []
    masks += [] if "inputs_indicator" in fields or causal else ["prefix"]
    return {
        f"{prefix}attention_mask": masks,
        f"{prefix}sliding_window": [size for size in windows if size and size >= length],
    }


def matches(config: ModelConfig, key: str, value: Any) -> bool:
    """Whether the setting has this value; a mapping is compared only in the parts it names."""
    now = value_at(config, key)
    if isinstance(value, Mapping):
        return isinstance(now, Mapping) and all(now.get(k) == v for k, v in value.items())
    return now == value and (now is None) == (value is None)


def moved(config: ModelConfig, key: str, value: Any) -> ModelConfig | None:
    """The configuration with one value changed; None if nothing changes, or it is invalid."""
    if matches(config, key, value):
        return None
    if key not in open_settings(config):
        return None  # for example a part of an absent record
    return with_values(config, {key: value})


def moves(config: ModelConfig, able: Iterable[Choice]) -> Iterator[tuple[str, Any, ModelConfig]]:
    """Yield (key, value, configuration) for each single change."""
    for choice in able:
        for value in choice.values:
            made = moved(config, choice.key, value)
            if made is not None:
                yield choice.key, value, made


def combinations(config: ModelConfig, able: Iterable[Choice]) -> list[ModelConfig]:
    """Models for the combinations of gross settings; settings beyond `MOST` are left out."""
    prefix = BACKBONE if isinstance(config, EfficientIDSConfig) else ""
    open_here = {choice.key: choice.values for choice in able}
    axes: list[tuple[str, tuple[Any, ...]]] = []
    count = 1
    for name in (*GROSS, *GROSS_VALUES):
        key = prefix + name
        values = open_here.get(key, ())
        if name in GROSS_VALUES:
            values = tuple(v for v in values if v in GROSS_VALUES[name] or v == values[0])
        if len(values) > 1 and count * len(values) <= MOST:
            axes.append((key, values))
            count *= len(values)
    found: dict[ModelConfig, None] = {}
    for values in product(*(values for _, values in axes)):
        wanted = {key: value for (key, _), value in zip(axes, values, strict=True)}
        made = with_values(config, wanted)
        if made is not None:
            found[made] = None
    return list(found)
