"""Maps our parameters back to the tensors of a family, with its table reversed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from converters.arrays import Array, Raised
from converters.errors import MappingError
from converters.huggingface.fused import fused_again
from converters.huggingface.mapping import sizes_of, with_numbers
from converters.huggingface.pieces import put_together
from converters.huggingface.tables import TABLES, TO_IN_OUT, TensorTable
from converters.rules import Rule, apply_rules
from efficientids_flax.backbone.presets import FAMILIES
from efficientids_flax.config import BackboneConfig
from efficientids_flax.config.parts import KernelAxes
from efficientids_flax.parameters import parameter_axes

NORM_SCALE = "norm/scale"
LAYER = "layers_{i}/attention/"
Pairing = Literal["half_split", "interleaved"]
FUSED, SEPARATE = LAYER + "qkv/{kernel|bias}", LAYER + "{query|key|value}/{kernel|bias}"


@dataclass(frozen=True)
class Tensor:
    """A lazy tensor, and the operations that make it."""

    array: Array
    steps: tuple[str, ...] = ()


def tensors_of(
    params: Mapping[str, Array], family: str, config: BackboneConfig
) -> dict[str, Tensor]:
    """Make the tensors of a family, with its names.

    Args:
        params: path -> array, all parameters of the configuration.
        family: a family that computes the same as the configuration, see `config_json`.
        config: configuration of the decoder that the parameters belong to.

    Raises:
        MappingError: the family has no tensor for some parameters, or they do not fit together.
    """
    table, axes, pairing = TABLES[family], FAMILIES[family].kernel_axes, FAMILIES[family].pairing
    found = {path: Tensor(array) for path, array in params.items()}
    if config.norm_scale_plus_one and not FAMILIES[family].fixed.get("norm_scale_plus_one"):
        found |= {
            path: Tensor(Raised(tensor.array, 1), ("add 1",))
            for path, tensor in found.items()
            if path.endswith(NORM_SCALE)
        }
    for rules in _arrangements(config, table, axes, pairing):
        found = _apply(found, rules)
    words, layers = table.prefix + table.embedding, table.prefix + table.layers
    in_layers = (*table.layer, *table.layer_of(config))
    rules = [
        Rule(words, "embedder/embedding"),
        Rule(
            words if config.tied_embeddings else table.head,
            "lm_head/kernel",
            TO_IN_OUT if axes == "in_out" else "",
        ),
        Rule(table.head.replace("weight", "bias"), "lm_head/bias"),
        *(_backwards(rule, "", table.prefix, config) for rule in table.top),
        *(_backwards(rule, "layers_{i}/", layers, config) for rule in in_layers),
    ]
    left = [path for path in found if not _matches(path, rules)]
    if left:
        raise MappingError(
            "\n  ".join([f"the family has no tensor for {len(left)} parameter(s):", *left[:20]])
        )
    found = _joined(_apply(found, rules), table, layers, config)
    return _experts(found, table, layers, config)


def reversed_op(op: str) -> str:
    """The operation that undoes one of the tables, which only contain splits and transposes."""
    steps = [step.split() for step in op.split(";") if step.strip()]
    return "; ".join(_UNDO[name](arguments) for name, *arguments in reversed(steps))


def _transposed_back(axes: Sequence[str]) -> str:
    return " ".join(["transpose", *(str(axes.index(str(i))) for i in range(len(axes)))])


_UNDO: Mapping[str, Callable[[list[str]], str]] = {
    "split": lambda arguments: f"merge {arguments[0]}",
    "transpose": _transposed_back,
}


def _backwards(rule: Rule, ours: str, theirs: str, config: BackboneConfig) -> Rule:
    return Rule(
        theirs + rule.source, ours + rule.target, reversed_op(with_numbers(rule.op, config))
    )


def _arrangements(
    config: BackboneConfig, table: TensorTable, axes: KernelAxes, pairing: Pairing
) -> list[list[Rule]]:
    """Lists of rules, to be applied in turn, that arrange the parameters as the table has them."""
    rotary = config.rotary or config.sliding_rotary
    # The class of latent attention handles both pairings.
    swapped = rotary is not None and rotary.pairing != pairing and not config.latent_attention
    fused = any(rule.target.startswith("attention/qkv/") for rule in table.layer)
    turns: list[list[Rule]] = []
    if config.scan_layers:
        turns.append(_layers_apart(config.layers_per_block))
    if config.kernel_axes != axes:
        turns.append(_kernels_turned(config, axes))
    if config.multi_query:
        name, width = LAYER + "{key|value}/", config.head_dim
        heads = 1 if axes == "in_out" else 0  # [D, H] -> [D, 1, H], [H, D] -> [1, H, D]
        turns.append(
            [
                Rule(f"{name}kernel", f"{name}kernel", f"split {heads} 1 {width}"),
                Rule(f"{name}bias", f"{name}bias", f"split 0 1 {width}"),
            ]
        )
    if config.fused_qkv and (swapped or not fused):
        turns.append([Rule(SEPARATE, FUSED, "unstack 0")])
    if swapped:
        turns.append(_pairs_moved(config, axes, pairing))
    if fused and (swapped or not config.fused_qkv):
        turns.append([Rule(FUSED, SEPARATE, "stack 0")])
    return turns


def _layers_apart(per_block: int) -> list[Rule]:
    """Rules that unstack scanned layers."""
    rest = "{rest*}"
    if per_block == 1:
        return [Rule(f"layers_{{i}}/{rest}", f"layers/{rest}", "unstack 0")]
    return [
        Rule(
            f"layers_{{i}}/{rest}",
            f"layers/block_{place}/{rest}",
            f"unstack 0 {place} {per_block}",
        )
        for place in range(per_block)
    ]


def _kernels_turned(config: BackboneConfig, axes: KernelAxes) -> list[Rule]:
    """Rules that transpose the kernels of unstacked layers to another order of axes."""
    apart = replace(config, scan_layers=False, layers_per_block=1)
    ours, theirs = parameter_axes(apart), parameter_axes(replace(apart, kernel_axes=axes))
    return [
        Rule(path, path, " ".join(["transpose", *(str(ours[path].index(axis)) for axis in wanted)]))
        for path, wanted in theirs.items()
        if wanted != ours[path]
    ]


def _pairs_moved(config: BackboneConfig, kernel_axes: KernelAxes, pairing: Pairing) -> list[Rule]:
    """Rules that move a head's pairs (2i, 2i + 1) to (i, i + H/2) or back, in queries and keys.

    All products of queries and keys stay the same, but are summed in another order.
    """
    half = config.head_dim // 2
    sizes = f"{half} 2" if pairing == "half_split" else f"2 {half}"

    def swap(axis: int, behind: int) -> str:
        order = [*range(axis), axis + 1, axis, *range(axis + 2, axis + 2 + behind)]
        return f"split {axis} {sizes}; transpose {' '.join(map(str, order))}; merge {axis}"

    # Axis of the head width, and the number of axes after it.
    kernel = (2, 0) if kernel_axes == "in_out" else (1, 1)
    places = {"{query|key}/kernel": kernel, "{query|key}/bias": (1, 0)}
    if config.qk_norm != "none":
        axis = int(config.qk_norm != "per_head")
        places["{query|key}_norm/{scale|bias}"] = (axis, 0)
    return [Rule(LAYER + name, LAYER + name, swap(*place)) for name, place in places.items()]


def _matches(path: str, rules: Sequence[Rule]) -> bool:
    return any(rule.pattern.fullmatch(path) for rule in rules)


def _apply(tensors: Mapping[str, Tensor], rules: Sequence[Rule]) -> dict[str, Tensor]:
    """The tensors with those that rules match replaced by the rules' results."""
    taken = {name: tensor for name, tensor in tensors.items() if _matches(name, rules)}
    steps = {id(tensor.array): tensor.steps for tensor in taken.values()}
    made = apply_rules({name: tensor.array for name, tensor in taken.items()}, rules).leaves
    found = {name: tensor for name, tensor in tensors.items() if name not in taken}
    for leaf in made:
        before = _steps(leaf.array, steps)
        found[leaf.target] = Tensor(leaf.array, (*before, *filter(None, [leaf.rule.op])))
    return found


def _steps(array: Array, known: Mapping[int, tuple[str, ...]]) -> tuple[str, ...]:
    """The steps of the first array in `known` that this array is computed from."""
    while id(array) not in known:
        array = array.inputs[0]
    return known[id(array)]


def _joined(
    tensors: Mapping[str, Tensor], table: TensorTable, layers: str, config: BackboneConfig
) -> dict[str, Tensor]:
    """The tensors with `TensorTable.cuts` joined and `TensorTable.stacks` separated again."""
    arrays = {name: tensor.array for name, tensor in tensors.items()}
    made = put_together(arrays, table, layers, sizes_of(config))
    return {
        name: Tensor(array, (*tensors[first].steps, *filter(None, [step])))
        for name, array, first, step in made
    }


def _experts(
    tensors: Mapping[str, Tensor], table: TensorTable, layers: str, config: BackboneConfig
) -> dict[str, Tensor]:
    """The tensors with those of experts fused again, for families whose files have them so."""
    ops = {name: reversed_op(with_numbers(fused.op, config)) for name, fused in table.fused.items()}
    arrays = {name: tensor.array for name, tensor in tensors.items()}
    return {
        name: Tensor(array, (*tensors[first].steps, *steps))
        for name, array, first, steps in fused_again(arrays, table, layers, ops)
    }
