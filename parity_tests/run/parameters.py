"""Brings parameters and gradients with the names of their origin to our tree.

This applies the converter's own rule tables to arrays in memory. So a recording may have repeated,
separate or pipelined layers, whatever the converted checkpoint has.
"""

from collections.abc import Mapping

import numpy as np

from converters.arrays import Source, held
from converters.errors import MappingError
from converters.rules import UNSAID, Said, table_for
from efficientids_flax.config import EfficientIDSConfig
from parity_tests.recording import Arrays, RecordingError
from parity_tests.run.activations import EMBEDS, Subject

PARAMS = "params/"
OWN = "efficientids_flax"


def to_our_tree(
    values: Arrays, names: str, subject: Subject
) -> dict[str, tuple[np.ndarray, tuple[str, ...]]]:
    """Map arrays to our tree: our parameter path -> (values, names that they came from).

    Args:
        values: arrays by the origin's paths, `params/lm/...`; may be a part of the tree.
        names: name table of the origin; our own names need no translation.
        subject: the converted model; tells whether layers are stacked, and how heads were read.

    Raises:
        RecordingError: the table of the model's family does not accept the names or shapes.
    """
    values = {name.removeprefix(PARAMS): value for name, value in values.items()}
    if names == OWN:
        return {name: (value, (name,)) for name, value in values.items()}
    recommender = isinstance(subject.config, EfficientIDSConfig)
    family = "efficientids" if recommender else "transformer_lm"
    said, nhd = Said(subject.backbone.num_heads, subject.nhd_post), subject.nhd_post
    scanned = subject.backbone.scan_layers
    try:
        return renamed(values, family, scanned, nhd, said)
    except MappingError as error:
        raise RecordingError(f"parameters named as in {names} do not fit: {error}") from error


def renamed(
    values: Arrays,
    family: str,
    scan_layers: bool | None = None,
    nhd_post: bool | None = None,
    said: Said = UNSAID,
) -> dict[str, tuple[np.ndarray, tuple[str, ...]]]:
    """Map arrays with the rule table of a family; see `to_our_tree`.

    Raises:
        MappingError: the table does not accept the names or shapes.
    """
    sources = {
        name: Source(held(PARAMS + name, np.asarray(value))) for name, value in values.items()
    }
    table, _ = table_for(sources, family, scan_layers, nhd_post, said)
    mapped = table.apply_part(sources)
    found = {}
    for leaf in mapped:
        region = tuple(slice(0, size) for size in leaf.array.shape)
        origins = tuple(
            f"{PARAMS}{source.spec.path.removeprefix(PARAMS)}" for source in leaf.array.leaves()
        )
        found[leaf.target] = leaf.array.read(region, lambda source: source.reader(0)), origins
    return found


def place(
    values: Mapping[str, np.ndarray], like: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """`values` with the dtypes of `like`.

    Raises:
        RecordingError: a leaf is missing, unknown or of another shape.
    """
    problems = [f"{name}: missing" for name in like.keys() - values.keys()]
    problems += [f"{name}: the model has none" for name in values.keys() - like.keys()]
    problems += [
        f"{name}: recorded {list(values[name].shape)}, the model has {list(like[name].shape)}"
        for name in like.keys() & values.keys()
        if values[name].shape != like[name].shape
    ]
    if problems:
        raise RecordingError(
            "\n  ".join(["the recorded parameters are of another model:", *problems])
        )
    return {name: np.asarray(values[name], like[name].dtype) for name in like}


def flow_order(path: str) -> tuple[int, int, str]:
    """Sort key of parameter paths in the order of computation: input, layers, output."""
    layer = layer_of(path)
    if layer is not None:
        return 1, layer, path
    if path.removeprefix("pretrained_lm/").startswith("layers"):
        return 1, 0, path
    first = ("embedder", "position_embedding", "item_embedding", "item_input", EMBEDS)
    return (0 if path.removeprefix("pretrained_lm/").startswith(first) else 2), 0, path


def layer_of(path: str) -> int | None:
    """The layer in a path such as `layers_3/...`; None for other paths and for stacked layers."""
    head = path.removeprefix("pretrained_lm/").partition("/")[0]
    number = head.removeprefix("layers_")
    return int(number) if head.startswith("layers_") and number.isdigit() else None
