"""From the tensors of a pretrained model to our decoder's parameters, by its family's table."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from converters.arrays import Array, Leaf, Region, Source
from converters.errors import MappingError
from converters.huggingface.fused import unfused
from converters.huggingface.pieces import taken_apart
from converters.huggingface.tables import HEAD_BIASES, HEADS, OUTSIDE, TO_IN_OUT, TensorTable
from converters.paxml import is_float
from converters.rules import Ignore, Rule, RuledTree, apply_rules
from efficientids_flax.config import BackboneConfig
from efficientids_flax.parameters import shape_problems

BLOCK = 8 << 20  # bytes that are compared at a time


def map_tensors(
    tensors: Mapping[str, Leaf], table: TensorTable, config: BackboneConfig
) -> tuple[BackboneConfig, RuledTree]:
    """The parameters as arrays that are not computed yet.

    Args:
        tensors: name -> leaf.
        table: of the family.
        config: of the model; whether layers are scanned is its `scan_layers`.

    Returns:
        The configuration, whose `tied_embeddings` is what the files say, and the parameters.

    Raises:
        MappingError: every tensor that no rule takes, every parameter that no tensor fills, every
            shape that does not fit.
        CheckpointError: the files end before the values that tell whether the head is tied.
    """
    prefix = _prefix(tensors, table)
    embedding, head = prefix + table.embedding, _around(tensors, prefix, HEADS)
    ignores = [*OUTSIDE, *(Ignore(prefix + i.source, i.reason) for i in table.ignores)]
    if head is not None and config.tied_embeddings:
        if _equal(tensors[embedding], tensors[head]):
            ignores.append(Ignore(head, f"equal to {embedding}, to which it is tied"))
            head = None
        else:
            config = replace(config, tied_embeddings=False)
    elif head is None and not config.tied_embeddings:
        raise MappingError(
            f"the head is missing: config.json says tie_word_embeddings false, and there is no "
            f"{' or '.join(HEADS)}"
        )
    turned = TO_IN_OUT if config.kernel_axes == "in_out" else ""  # (V, D), whatever kernels are
    if head is None:
        words = [Rule("lm_head/kernel", embedding, turned)]
    else:
        words = [Rule("embedder/embedding", embedding), Rule("lm_head/kernel", head, turned)]
    if config.lm_head_bias:
        words.append(Rule("lm_head/bias", _around(tensors, prefix, HEAD_BIASES) or HEAD_BIASES[0]))
    words += [Rule(rule.target, prefix + rule.source, rule.op) for rule in table.top]
    layers = prefix + table.layers
    in_layers = (*table.layer, *table.layer_of(config))
    rules = words + [_layer_rule(rule, layers, config) for rule in in_layers]
    sources = {name: Source(leaf) for name, leaf in tensors.items()}
    arrays = taken_apart(sources, table, layers, sizes_of(config))
    numbers = {name: with_numbers(fused.op, config) for name, fused in table.fused.items()}
    arrays = unfused(arrays, table, layers, numbers)
    if config.layers_per_block > 1:
        arrays = _by_block(arrays, layers, config.layers_per_block)
    tree = apply_rules(arrays, rules, ignores)
    _check(tree, config)
    return config, tree


def _prefix(tensors: Mapping[str, Leaf], table: TensorTable) -> str:
    """What stands before all names of the language model ('model.', 'transformer.' ...)."""
    found = [
        name.removesuffix(table.embedding)
        for name in tensors
        if name == table.embedding or name.endswith(f".{table.embedding}")
    ]
    if len(found) == 1:
        return found[0]
    what = "several tensors are" if found else "no tensor is"
    raise MappingError(
        f"{what} named [...]{table.embedding}, the word embeddings of this family"
        + (f": {', '.join(prefix + table.embedding for prefix in found)}" if found else "")
    )


def _around(tensors: Mapping[str, Leaf], prefix: str, known: Sequence[str]) -> str | None:
    """Name of the head, which lies beside the model or beside one of the modules around it."""
    parts = prefix.split(".")
    around = [".".join(parts[:count]) for count in range(len(parts))]
    names = [f"{place}.{head}" if place else head for place in around for head in known]
    found = [name for name in dict.fromkeys(names) if name in tensors]
    if len(found) > 1:
        raise MappingError(f"several heads: {', '.join(found)}")
    return found[0] if found else None


def sizes_of(config: BackboneConfig) -> dict[str, int]:
    """Value of each letter of the tables."""
    heads, width = config.num_heads, config.head_dim
    return {
        "D": config.model_dims,
        "N": heads,
        "J": config.num_kv_heads,
        "H": width,
        "F": config.hidden_dims,
        "NH": heads * width,
        "3H": 3 * width,
        "X": config.moe.num_experts if config.moe else 0,
        "FX": config.moe.hidden_dims if config.moe else 0,
    }


def with_numbers(op: str, config: BackboneConfig) -> str:
    """An operation of the tables, with numbers for letters."""
    sizes = sizes_of(config)
    return re.sub(r"\b3?[A-Z]+\b", lambda letter: str(sizes[letter.group()]), op)


def _layer_rule(rule: Rule, layers: str, config: BackboneConfig) -> Rule:
    """A rule of one layer, with its place, and with numbers for letters."""
    op = with_numbers(rule.op, config)
    if not config.scan_layers:
        return Rule(f"layers_{{i}}/{rule.target}", layers + rule.source, op)
    op = "; ".join([op, "stack 0"] if op else ["stack 0"])
    if config.layers_per_block == 1:
        return Rule(f"layers/{rule.target}", layers + rule.source, op)
    blocks = layers.replace("{i}", "{i}@{j}")
    return Rule(f"layers/block_{{j}}/{rule.target}", blocks + rule.source, op)


def _by_block(arrays: Mapping[str, Array], layers: str, per_block: int) -> dict[str, Array]:
    """The arrays with layer `i` named `block@place`, for the rules of scanned blocks."""
    before, _, after = layers.partition("{i}")
    pattern = re.compile(rf"({re.escape(before)})(\d+)(?={re.escape(after)})")

    def renamed(name: str) -> str:
        found = pattern.match(name)
        if found is None:
            return name
        block, place = divmod(int(found.group(2)), per_block)
        return f"{before}{block}@{place}{name[found.end() :]}"

    return {renamed(name): array for name, array in arrays.items()}


def _equal(first: Leaf, second: Leaf) -> bool:
    """Whether two tensors hold the same values."""
    shape = first.spec.shape
    if shape != second.spec.shape:
        return False
    readers = first.reader(BLOCK), second.reader(BLOCK)
    row = max(first.spec.nbytes // max(shape[0], 1), 1)
    step = max(BLOCK // row, 1)
    for start in range(0, shape[0], step):
        rest = tuple(slice(0, size) for size in shape[1:])
        region: Region = (slice(start, min(start + step, shape[0])), *rest)
        one, other = (reader.read(region) for reader in readers)
        if not np.array_equal(one.astype(np.float32), other.astype(np.float32), equal_nan=True):
            return False
    return True


def _check(tree: RuledTree, config: BackboneConfig) -> None:
    """Raise `MappingError` unless the tensors are all parameters of the model, as floats."""
    problems = shape_problems(config, {leaf.target: leaf.array.shape for leaf in tree.leaves})
    problems += [
        f"{leaf.target}: holds {leaf.array.dtype}; quantised weights are not supported"
        for leaf in tree.leaves
        if not is_float(leaf.array.dtype) or leaf.array.dtype.itemsize == 1
    ]
    if problems:
        listed = [*problems[:20], *(["..."] if len(problems) > 20 else [])]
        raise MappingError(
            "\n  ".join(
                [f"tensors and config.json do not fit, {len(problems)} problem(s):", *listed]
            )
        )
