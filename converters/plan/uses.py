"""How Praxis uses each quantized weight: which axes it contracts, and along which axis it packs.

A quantized leaf does not say this, and sizes can be equal by chance. So the leaf's name decides,
and other leaves of the tree give the width of the model. Letters: D model width, N heads, H head
width, F hidden width, V words, X experts, S blocks of C values ("sub-channels").
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

Shape = tuple[int, ...]

_STACKS = ("/repeat/", "/pipeline/")  # layers below these have one more axis
_LAYER = "/x_layers_"


@dataclass(frozen=True)
class Kind:
    """A kind of weight in praxis/layers/quantization.

    Attributes:
        ends: suffixes of its path.
        axes: letters of the weight's axes before packing. A weight with merged heads, or with one
            head only, has one axis less.
        contracted: letters of the axes that are summed over; the scales have the other axes, in
            order.
        packed: letter of the axis along which 4-bit numbers are packed (`_PACK_4BIT_DIM`).
    """

    ends: tuple[str, ...]
    axes: str
    contracted: str
    packed: str


# fmt: off
KINDS = (
    # path ends with                                      axes     summed   packed along
    Kind(("self_attention/combined_qkv/w",),              "3DNH",  "D",     "D"),
    Kind(("self_attention/query/w", "self_attention/key/w",
          "self_attention/value/w"),                      "DNH",   "D",     "D"),
    Kind(("self_attention/post/w",),                      "DNH",   "NH",    "D"),
    Kind(("ff_layer/ffn_layer1/linear/w",
          "ff_layer/ffn_layer1_gate/linear/w"),           "DF",    "D",     "D"),
    Kind(("ff_layer/ffn_layer2/linear/w",),               "FD",    "F",     "F"),
    Kind(("ff_layer/wi_0", "ff_layer/wi_gate_0"),         "XDF",   "D",     "D"),
    Kind(("ff_layer/wo_0",),                              "XFD",   "F",     "F"),
    Kind(("softmax/logits_ffn/linear/w",),                "DV",    "D",     "D"),
    # one row per word (NClassMajorSharedEmbeddingSoftmax), and embedding tables
    Kind(("softmax/w", "emb_var"),                        "VD",    "D",     "V"),
)
NHD_POST = Kind(("self_attention/post/w",),               "NHD",   "NH",    "N")
# fmt: on


@dataclass(frozen=True)
class Use:
    """How one weight is used.

    Attributes:
        factor: 4-bit numbers packed in each integer; 1 if they are not packed.
        packed: axis along which they are packed.
        scaled: axes of the weight that the scales have too.
        blocks: axis to merge with the next one after scaling; None if the scales are not for
            blocks.
        guessed: whether `factor` is a guess because nothing shows if the weight is packed.
    """

    factor: int
    packed: int
    scaled: tuple[int, ...]
    blocks: int | None = None
    guessed: bool = False


@dataclass(frozen=True)
class Sizes:
    """Sizes of weights, as the leaves of a tree show them.

    Attributes:
        shapes: parameter path -> shape.
        nhd_post: whether output projections are [N, H, D]; None if only shapes can tell.
    """

    shapes: Mapping[str, Shape]
    nhd_post: bool | None = None

    @cached_property
    def width(self) -> int | None:
        """D, from a norm or an embedding table; None if there is neither."""
        ends = ("final_ln/scale", "layer_norm/scale", "pre_layer_norm/scale", "emb_var")
        for end in ends:
            found = [s[-1] for path, s in self.shapes.items() if path.endswith(end) and s]
            if found:
                return found[0]
        return None

    def leading(self, path: str) -> int:
        """How many axes for stacked layers a leaf has."""
        layer = _layer_of(path)
        for norm in ("layer_norm/scale", "pre_layer_norm/scale", "ff_layer/layer_norm/scale"):
            if layer is not None and (shape := self.shapes.get(layer + norm)):
                return len(shape) - 1
        return sum(f"/{path}".count(place) for place in _STACKS)

    def size(self, letter: str, path: str) -> int | None:
        """Size of an axis of a weight, as other leaves of its layer show it; None if none does."""
        layer = _layer_of(path) or ""
        if letter == "D":
            return self.width
        if letter == "F":
            up = "wi_0" if path.endswith("wo_0") else "ffn_layer1/linear/w"
            shape = self.shapes.get(f"{layer}ff_layer/{up}")
            return shape[-1] if shape else None
        if letter in "NH":
            for name in ("query", "combined_qkv"):
                shape = self.shapes.get(f"{layer}self_attention/{name}/w")
                if shape is not None and len(shape) - self.leading(path) > 2:
                    return shape[-2 if letter == "N" else -1]
        return None


def use_of(path: str, weight: Shape, scale: Shape, sizes: Sizes, factors: tuple[int, ...]) -> Use:
    """Find how the weight at a path is used.

    Args:
        path: path of the weight, below the parameters.
        weight: its shape as stored.
        scale: shape of its scales.
        sizes: what the rest of the tree shows.
        factors: how many numbers an integer of its dtype may hold; several candidates.

    Raises:
        ValueError: the shapes are not those that Praxis writes; says what was expected.
    """
    kind = next((kind for kind in KINDS if path.endswith(kind.ends)), None)
    if kind is None:
        return _unknown(path, weight, scale, sizes, factors)
    lead = sizes.leading(path)
    kinds = [kind]
    if kind.ends == NHD_POST.ends and sizes.nhd_post is not False:
        kinds = [NHD_POST] if sizes.nhd_post else [kind, NHD_POST]
    reasons: list[str] = []
    for one in kinds:
        try:
            return _fitted(one, path, lead, weight, scale, sizes, factors)
        except ValueError as error:
            reasons.append(str(error))
    raise ValueError(reasons[0])


def _fitted(
    kind: Kind,
    path: str,
    lead: int,
    weight: Shape,
    scale: Shape,
    sizes: Sizes,
    factors: tuple[int, ...],
) -> Use:
    own, axes = weight[lead:], kind.axes
    blocks = _split_axis(kind, own, path, sizes) if len(own) == len(axes) + 1 else None
    if blocks is None and len(own) == len(axes) - 1 and "NH" in axes:
        axes = axes.replace("NH", "H")  # heads are merged, or keys and values have a single head
    if blocks is None and len(own) != len(axes):
        raise ValueError(f"expected axes {' '.join(axes)}")
    # Attention contracts axes with the same indices, whether or not blocks add an axis. A linear
    # layer with blocks contracts, and packs along, the axis of the values in each block.
    shift = blocks is not None and kind.axes in ("DF", "FD", "DV")
    places = [axes.index(letter) + shift for letter in kind.contracted if letter in axes]
    packed = axes.index(kind.packed if kind.packed in axes else "H") + shift
    scaled = tuple(i for i in range(len(weight)) if i < lead or i - lead not in places)
    factor, guessed = _factor(
        kind.packed, packed, own, blocks, scale[lead:], places, sizes, path, factors
    )
    full = tuple(
        size * (factor if axis == packed + lead else 1) for axis, size in enumerate(weight)
    )
    if blocks is None:
        _check(axes, full[lead:], path, sizes)
    chosen = _squeezed(full, scaled, scale)
    return Use(factor, packed + lead, chosen, None if blocks is None else blocks + lead, guessed)


def _split_axis(kind: Kind, own: Shape, path: str, sizes: Sizes) -> int:
    """The axis that is stored as blocks [S, C]: the largest one that is contracted."""
    if len(kind.contracted) == 1:
        return kind.axes.index(kind.contracted)
    heads, width = sizes.size("N", path), sizes.size("H", path)
    first = kind.axes.index("N")
    if heads is not None and width is not None and width > heads:
        return first + 1
    return first


def _factor(
    letter: str,
    packed: int,
    own: Shape,
    blocks: int | None,
    scale: Shape,
    contracted: list[int],
    sizes: Sizes,
    path: str,
    factors: tuple[int, ...],
) -> tuple[int, bool]:
    """How many numbers each integer holds, and whether that is a guess."""
    stored = own[packed]
    wanted = sizes.size(letter, path)
    if letter == "N" and len(own) == 2 and wanted is not None:  # merged heads
        wanted *= sizes.size("H", path) or 0
    if blocks is not None and packed in (blocks, blocks + 1):
        stored = own[blocks] * own[blocks + 1]
    elif packed not in contracted and blocks is None and scale:
        kept = [axis for axis in range(len(own)) if axis not in contracted]
        if len(kept) == len(scale):
            wanted = scale[kept.index(packed)]
    if wanted is None:
        return factors[0], len(factors) > 1
    for factor in factors:
        if stored * factor == wanted:
            return factor, False
    some = " or ".join(str(factor) for factor in factors)
    raise ValueError(f"{stored} times {some} number(s) are not the {wanted} that {letter} has")


def _check(axes: str, full: Shape, path: str, sizes: Sizes) -> None:
    """Raise `ValueError` if an axis has another size than in other leaves."""
    for letter, size in zip(axes, full, strict=True):
        single = "NH" not in axes and letter == "H"  # size N * H (merged) or H (single head)
        wanted = None if single or letter not in "DNH" else sizes.size(letter, path)
        if letter in "NH" and path.endswith(("key/w", "value/w")):
            wanted = None  # there may be fewer key and value heads than queries
        if wanted is not None and wanted != size:
            raise ValueError(f"axis {letter} has {size}, other leaves have {wanted}")


def _squeezed(weight: Shape, scaled: tuple[int, ...], scale: Shape) -> tuple[int, ...]:
    """The axes that the scales have; Praxis drops those of size 1.

    Raises:
        ValueError: the scales have another shape.
    """
    for axes in (scaled, tuple(axis for axis in scaled if weight[axis] != 1)):
        if tuple(weight[axis] for axis in axes) == scale:
            return axes
    raise ValueError(f"expected scales {[weight[axis] for axis in scaled]}")


def _unknown(path: str, weight: Shape, scale: Shape, sizes: Sizes, factors: tuple[int, ...]) -> Use:
    """The use of a weight that is not in `KINDS`: its scales take the last axes that fit them."""
    lead = sizes.leading(path)
    factor, packed = factors[0], lead
    full = tuple(size * (factor if axis == packed else 1) for axis, size in enumerate(weight))
    fits = [
        axes
        for axes in combinations(range(len(full)), len(scale))
        if tuple(full[axis] for axis in axes) == scale and axes[:lead] == tuple(range(lead))
    ]
    if not fits:
        raise ValueError("no axes of it have these sizes")
    return Use(factor, packed, fits[-1], guessed=len(factors) > 1)


def _layer_of(path: str) -> str | None:
    """Path of the layer that a leaf belongs to, with a trailing slash; None outside layers."""
    head, found, rest = f"/{path}".rpartition(_LAYER)
    if not found:
        return None
    return (head + found + rest.partition("/")[0] + "/").removeprefix("/")
