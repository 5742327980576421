"""Splits the heads that PAXml merges into one axis in some kernels of attention.

Praxis' `AttentionProjection` with `attention_combine_dims` (GLaM, Grok) stores [D, N*H], its
`CombinedQKVProjectionLayer` [3, D, N*H]; with `use_nhd_shape` the output projection is [N*H, D].
Letters: D model width, N heads, H head width, P width of relative keys.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from converters.errors import MappingError

Shape = tuple[int, ...]
ATTENTION = "self_attention/"

# fmt: off
MERGED = {
    # below self_attention  axis of N*H, axes in all
    "query/w":              (1, 2),   # [D, N*H]
    "key/w":                (1, 2),
    "value/w":              (1, 2),
    "combined_qkv/w":       (2, 3),   # [3, D, N*H]
    "combined_qkv/b":       (1, 2),   # [3, N*H]
    "pos_proj/w":           (1, 2),   # [P, N*H]
    "post/w":               (1, 2),   # [D, N*H], or [N*H, D]
}
COUNTS = (  # leaves that say how many heads there are, and how wide they are
    ("relative_bias/wrb", 0, 2, None), ("u", 0, 2, 1), ("key/b", 0, 2, 1), ("query/w", 1, 3, 2),
    ("combined_qkv/w", 2, 4, 3), ("post/w", 1, 3, 2), ("per_dim_scale/per_dim_scale", None, 1, 0),
    ("layer_norm_q/scale", None, 1, 0),
)
# fmt: on


@dataclass(frozen=True)
class Said:
    """What the job's dump or the user says about heads; None if they say nothing.

    Attributes:
        num_heads: N.
        nhd_post: whether the axes of the output projection begin with the heads.
        templates: how many different templates the layers have.
    """

    num_heads: int | None = None
    nhd_post: bool | None = None
    templates: int = 1


UNSAID = Said()


@dataclass(frozen=True)
class Split:
    """How the heads of one layer's kernels are split.

    Attributes:
        steps: path below a layer -> operation on the leaf's own axes.
        leading: number of axes for layers before them.
        guessed: a leaf whose axes could be in either order, or ''.
    """

    steps: Mapping[str, str]
    leading: int = 0
    guessed: str = ""


def split_heads(shapes: Mapping[str, Shape], said: Said) -> Split:
    """Find how merged heads are split; there are no steps if none are merged.

    Args:
        shapes: parameter path -> shape.
        said: settings that shapes cannot tell.

    Raises:
        MappingError: heads are merged, and nothing fitting says how many there are.
    """
    root = next((p.removesuffix("post/w") for p in shapes if p.endswith(f"{ATTENTION}post/w")), "")
    layer = root.removesuffix(ATTENTION)
    norms = (f"{layer}layer_norm/scale", f"{layer}pre_layer_norm/scale")
    scale = next((shapes[norm] for norm in norms if norm in shapes), None)
    if not root or not scale:
        return Split({})
    leading, width = len(scale) - 1, scale[-1]
    own = {
        path.removeprefix(root): shape[leading:]
        for path, shape in shapes.items()
        if path.startswith(root)
    }
    merged = {name: axis for name, (axis, rank) in MERGED.items() if len(own.get(name, ())) == rank}
    if "post/w" not in merged and "combined_qkv/w" not in merged:
        return Split({})  # multi-query attention: its single head has two axes too
    place = "post/w" if "post/w" in merged else "combined_qkv/w"
    size = own[place][0] if own[place][-1] == width and place == "post/w" else own[place][-1]
    heads = _heads(own, size, said)
    if heads is None:
        raise MappingError(
            f"{root}{place} {list(own[place])}: the heads are merged into one axis of {size}, and"
            " no leaf says how many there are; give --set num_heads=..."
        )
    count, wide = heads
    steps, guessed = {}, ""
    for name, axis in merged.items():
        if name == "post/w":
            last, first = own[name] == (width, size), own[name] == (size, width)
            told = _is_glam(shapes) if said.nhd_post is None else said.nhd_post
            if first and last and said.nhd_post is None:
                guessed = root + name
            step = f"split 1 {count} {wide}"
            if first and (told or not last):
                step = f"split 0 {count} {wide}; transpose 2 0 1"
        elif own[name][axis] != size:
            continue  # it has a single head
        else:
            step = f"split {axis} {count} {wide}"
        steps[ATTENTION + name] = step
    return Split(steps, leading, guessed)


def with_heads(shapes: Mapping[str, Shape], said: Said) -> dict[str, Shape]:
    """The shapes after merged heads are split, as far as the number of heads is known."""
    try:
        split = split_heads(shapes, said)
    except MappingError:
        return dict(shapes)
    found = {}
    for path, shape in shapes.items():
        name = next((name for name in split.steps if path.endswith(f"/{name}")), None)
        found[path] = shape
        if name is not None:
            _, axis, *sizes = split.steps[name].partition(";")[0].split()
            place = split.leading + int(axis)
            found[path] = (*shape[:place], *map(int, sizes), *shape[place + 1 :])
    return found


def _heads(own: Mapping[str, Shape], size: int, said: Said) -> tuple[int, int] | None:
    """(N, H) of a merged axis, from `said` or from other leaves of the layer."""
    counts = [said.num_heads] if said.num_heads else []
    for name, heads, rank, width in COUNTS:
        shape = own.get(name, ())
        if len(shape) == rank and heads is not None:
            counts.append(shape[heads])
        elif len(shape) == rank and width is not None and shape[width]:
            counts.append(size // shape[width])
    return next(((n, size // n) for n in counts if n > 0 and size % n == 0), None)


def _is_glam(shapes: Mapping[str, Shape]) -> bool:
    """Whether the head is that of praxis/layers/glam.py, which always stores [N*H, D]."""
    return any(path.endswith("softmax/embedding/w") for path in shapes)
