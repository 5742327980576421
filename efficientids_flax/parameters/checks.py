"""Checks that the parameters found are those of a configuration."""

import os
from collections.abc import Iterable

from efficientids_flax.parameters.axes import ModelConfig, Shapes, parameter_shapes

# Names of leaves that a conversion stores beside quantized weights.
QUANTIZED = ("kernel_scale", "kernel_zero_point", "embedding_scale", "embedding_zero_point")


def shape_problems(config: ModelConfig, found: Shapes) -> list[str]:
    """The differences between the parameters of a configuration and the shapes found."""
    wanted = parameter_shapes(config)
    problems = [f"{path}: missing, {list(wanted[path])} expected" for path in wanted.keys() - found]
    problems += [
        f"{path}: the configuration has no such parameter" for path in found.keys() - wanted
    ]
    problems += [
        f"{path}: found {list(found[path])}, {list(wanted[path])} expected"
        for path in wanted.keys() & found
        if wanted[path] != found[path]
    ]
    return sorted(problems)


def refuse_quantized(path: str | os.PathLike[str], names: Iterable[str]) -> None:
    """Raise `ValueError` if `names` contain scales of quantized weights.

    A model would ignore the scales and multiply by the integers.
    """
    found = [name for name in names if name.endswith(QUANTIZED)]
    if found:
        raise ValueError(
            f"{path}: the weights are quantized ({found[0]}, {len(found)} in all), and no model "
            "multiplies by these integers; convert the checkpoint again with --dequantize"
        )
