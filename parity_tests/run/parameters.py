"""Parameters and gradients under the names of their origin, brought to our tree.

The converter's own rule tables do it, on arrays in memory: so a recording may have repeated,
separate or pipelined layers whatever the converted checkpoint has.
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
    """Our parameter path -> values and the names that they came from.

    Args:
        values: by the origin's paths, `params/lm/...`; a part of the tree will do.
        names: table of the origin; with our own names nothing is to be done.
        subject: the converted model: whether its layers are stacked, and how heads were read.

    Raises:
        RecordingError: names or shapes that the table of the model's family does not take.
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
    """The same by the table of a family.

    Raises:
        MappingError: names or shapes that the table does not take.
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
    """Sorts parameter paths by the data flow: input, layers, output."""
    layer = layer_of(path)
    if layer is not None:
        return 1, layer, path
    if path.removeprefix("pretrained_lm/").startswith("layers"):
        return 1, 0, path
    first = ("embedder", "position_embedding", "item_embedding", "item_input", EMBEDS)
    return (0 if path.removeprefix("pretrained_lm/").startswith(first) else 2), 0, path


def layer_of(path: str) -> int | None:
    """The layer in a path, `layers_3/...`; None outside of the layers and for stacked ones."""
    head = path.removeprefix("pretrained_lm/").partition("/")[0]
    number = head.removeprefix("layers_")
    return int(number) if head.startswith("layers_") and number.isdigit() else None
