"""How Praxis uses a quantized weight: which axes are summed over, along which numbers are packed.

Nothing in a quantized leaf says this, and sizes that are equal by chance would hide it: the name
decides, and other leaves of the tree say how wide the model is. Letters: D model width, N heads,
H head width, F hidden width, V words, X experts, S blocks of C values ("sub-channels").
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

Shape = tuple[int, ...]

_STACKS = ("/repeat/", "/pipeline/")  # layers below these have an axis more
_LAYER = "/x_layers_"


@dataclass(frozen=True)
class Kind:
    """A kind of weight of praxis/layers/quantization.

    Attributes:
        ends: how its path ends.
        axes: letters of the weight before it is packed; merged heads, or one head only, lack one.
        contracted: letters that are summed over; scales have the others, in order.
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
    # a row a word (NClassMajorSharedEmbeddingSoftmax), and tables
    Kind(("softmax/w", "emb_var"),                        "VD",    "D",     "V"),
)
NHD_POST = Kind(("self_attention/post/w",),               "NHD",   "NH",    "N")
# fmt: on


@dataclass(frozen=True)
class Use:
    """How one weight is used.

    Attributes:
        factor: 4-bit numbers in each integer; 1 where they are not packed.
        packed: axis along which they are.
        scaled: axes along which scales run.
        blocks: axis that is to be merged with the next one after scaling; None where there are no
            blocks.
        guessed: nothing showed whether the weight is packed.
    """

    factor: int
    packed: int
    scaled: tuple[int, ...]
    blocks: int | None = None
    guessed: bool = False


@dataclass(frozen=True)
class Sizes:
    """What the leaves of a tree say about the sizes of its weights.

    Attributes:
        shapes: parameter path -> shape.
        nhd_post: whether output projections are [N, H, D]; None where only shapes can tell.
    """

    shapes: Mapping[str, Shape]
    nhd_post: bool | None = None

    @cached_property
    def width(self) -> int | None:
        """D, of a norm or of a table."""
        ends = ("final_ln/scale", "layer_norm/scale", "pre_layer_norm/scale", "emb_var")
        for end in ends:
            found = [s[-1] for path, s in self.shapes.items() if path.endswith(end) and s]
            if found:
                return found[0]
        return None

    def leading(self, path: str) -> int:
        """How many axes of stacked layers a leaf has."""
        layer = _layer_of(path)
        for norm in ("layer_norm/scale", "pre_layer_norm/scale", "ff_layer/layer_norm/scale"):
            if layer is not None and (shape := self.shapes.get(layer + norm)):
                return len(shape) - 1
        return sum(f"/{path}".count(place) for place in _STACKS)

    def size(self, letter: str, path: str) -> int | None:
        """Size of an axis of a weight, as other leaves of its layer have it."""
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
    """How the weight at a path is used.

    Args:
        path: of the weight, below the parameters.
        weight: its shape as it is stored.
        scale: shape of its scales.
        sizes: what the rest of the tree says.
        factors: how many numbers an integer of its dtype may hold.

    Raises:
        ValueError: the shapes are not those of Praxis, with what was expected.
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
        axes = axes.replace("NH", "H")  # merged heads, or the one head of keys and values
    if blocks is None and len(own) != len(axes):
        raise ValueError(f"expected axes {' '.join(axes)}")
    # Attention sums over the axes of the same numbers whether there are blocks before or not; a
    # linear layer over the values of each block, and packs along them.
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
    """The axis that lies in blocks: the largest of those that are summed over, here [S, C]."""
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
    """How many numbers lie in each integer, and whether that is a guess."""
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
    """Raise `ValueError` where a size is not that of other leaves."""
    for letter, size in zip(axes, full, strict=True):
        single = "NH" not in axes and letter == "H"  # N * H, or H
        wanted = None if single or letter not in "DNH" else sizes.size(letter, path)
        if letter in "NH" and path.endswith(("key/w", "value/w")):
            wanted = None  # fewer heads than queries have
        if wanted is not None and wanted != size:
            raise ValueError(f"axis {letter} has {size}, other leaves have {wanted}")


def _squeezed(weight: Shape, scaled: tuple[int, ...], scale: Shape) -> tuple[int, ...]:
    """The axes along which the scales run; Praxis leaves out those of size 1.

    Raises:
        ValueError: the scales have another shape.
    """
    for axes in (scaled, tuple(axis for axis in scaled if weight[axis] != 1)):
        if tuple(weight[axis] for axis in axes) == scale:
            return axes
    raise ValueError(f"expected scales {[weight[axis] for axis in scaled]}")


def _unknown(path: str, weight: Shape, scale: Shape, sizes: Sizes, factors: tuple[int, ...]) -> Use:
    """Of a layer that is not in the table: the axis before the last that scales leave is summed."""
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
    """The path of the layer that a leaf belongs to, with the last slash."""
    head, found, rest = f"/{path}".rpartition(_LAYER)
    if not found:
        return None
    return (head + found + rest.partition("/")[0] + "/").removeprefix("/")
