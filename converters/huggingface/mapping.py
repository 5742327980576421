"""Maps the tensors of a pretrained model to our decoder's parameters, by its family's table."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from converters.arrays import Array, Leaf
from converters.errors import MappingError
from converters.huggingface.files import equal_values
from converters.huggingface.fused import unfused
from converters.huggingface.names import (
    OTHER_HEAD,
    OTHER_HEADS,
    Names,
    another_form,
    beside,
    find_names,
    layer_of,
)
from converters.huggingface.pieces import taken_apart
from converters.huggingface.quantized import SCALES, numbers_of
from converters.huggingface.tables import HEAD_BIASES, HEADS, OUTSIDE, TO_IN_OUT, TensorTable
from converters.paxml import is_float
from converters.rules import Ignore, Rule, RuledTree, apply_rules
from converters.zarr import dtype_named
from efficientids_flax.config import BackboneConfig
from efficientids_flax.parameters import shape_problems

OUTPUT = "output_projection/kernel"  # applied to the hidden state before the head


def map_tensors(
    tensors: Mapping[str, Leaf],
    table: TensorTable,
    config: BackboneConfig,
    *,
    body: bool = False,
    notes: list[str] | None = None,
    quantization: Mapping[str, Any] | None = None,
    dtype: str | None = None,
) -> tuple[BackboneConfig, RuledTree]:
    """Map tensors to parameters, as lazy arrays.

    Args:
        tensors: name -> leaf.
        table: table of the family.
        config: configuration of the model; its `scan_layers` says whether layers become stacked.
        body: whether the model may lack a head.
        notes: receives what is left out.
        quantization: `quantization_config` of the model, if there is one.
        dtype: dtype of dequantized weights; None: that of the configuration.

    Returns:
        The configuration, with `tied_embeddings` and `lm_head` as in the files, and the parameters.

    Raises:
        MappingError: lists every tensor that no rule takes, every parameter that no tensor fills
            and every shape that does not fit. If the weights are in another form, says this in one
            line.
        CheckpointError: the files end before the values that show whether the head is tied.
    """
    told: list[str] = []
    try:
        names = find_names(tensors, table)
        config, words, ignores = _words(tensors, names, config, body, told)
    except MappingError as error:
        if form := another_form(name for name in tensors if not name.endswith(SCALES)):
            raise MappingError(form) from error
        raise
    prefix = names.prefix
    if config.lm_head_bias:
        words.append(Rule("lm_head/bias", beside(tensors, prefix, HEAD_BIASES) or HEAD_BIASES[0]))
    ignores += [*OUTSIDE, *OTHER_HEADS]
    ignores += [Ignore(prefix + ignore.source, ignore.reason) for ignore in table.ignores]
    of_head = [rule for rule in table.top if rule.target == OUTPUT and not config.lm_head]
    ignores += [Ignore(prefix + rule.source, "a part of the head") for rule in of_head]
    top = [rule for rule in table.top if rule not in of_head]
    rules = words + [Rule(rule.target, prefix + rule.source, rule.op) for rule in top]
    layers = prefix + table.layers
    in_layers = (*table.layer, *table.layer_of(config))
    rules += [_layer_rule(rule, layers, config) for rule in in_layers]
    kept, beyond = _first_layers(tensors, layers, config.num_layers, told)
    sources = numbers_of(kept, quantization or {}, dtype_named(dtype or config.dtype))
    arrays = taken_apart(sources, table, layers, sizes_of(config))
    numbers = {name: with_numbers(fused.op, config) for name, fused in table.fused.items()}
    arrays = unfused(arrays, table, layers, numbers)
    if config.layers_per_block > 1:
        arrays = _by_block(arrays, layers, config.layers_per_block)
    try:
        tree = apply_rules(arrays, rules, ignores)
    except MappingError as error:
        if form := another_form(sources):  # weights that were not dequantized
            raise MappingError(form) from error
        raise
    heads = [name for name, reason in tree.ignored if reason == OTHER_HEAD]
    if heads:
        told.append(f"left out: {', '.join(heads)}: {OTHER_HEAD}")
    _check(tree, config)
    if notes is not None:
        notes += told
    return config, replace(tree, ignored=(*tree.ignored, *beyond))


def _words(
    tensors: Mapping[str, Leaf],
    names: Names,
    config: BackboneConfig,
    body: bool,
    notes: list[str],
) -> tuple[BackboneConfig, list[Rule], list[Ignore]]:
    """Rules for word embeddings and head; they may be one tensor, or one may be missing."""
    turned = TO_IN_OUT if config.kernel_axes == "in_out" else ""  # files always have [V, D]
    embedding, head = names.embedding, names.head
    if embedding is None:
        assert head is not None
        if not config.tied_embeddings:
            raise MappingError(
                f"the word embeddings are missing: there is {head} alone, and config.json says "
                "tie_word_embeddings false"
            )
        return config, [Rule("lm_head/kernel", head, turned)], []
    ignores: list[Ignore] = []
    if head is not None and config.tied_embeddings:
        if equal_values(tensors[embedding], tensors[head]):
            ignores.append(Ignore(head, f"equal to {embedding}, to which it is tied"))
        else:
            config = replace(config, tied_embeddings=False)
    # If a family's head has a bias, a body without that bias has an incomplete head, tied or not.
    unbiased = config.lm_head_bias and beside(tensors, names.prefix, HEAD_BIASES) is None
    if config.tied_embeddings and not (body and unbiased):
        return config, [Rule("lm_head/kernel", embedding, turned)], ignores
    rules = [Rule("embedder/embedding", embedding)]
    if head is not None:
        return config, [*rules, Rule("lm_head/kernel", head, turned)], ignores
    if not body:
        raise MappingError(
            f"the head is missing: config.json says tie_word_embeddings false, and there is no "
            f"{' or '.join(HEADS)}"
        )
    notes.append("the model has no head: it gives hidden states, and no logits of words")
    config = replace(config, lm_head=False, tied_embeddings=False, lm_head_bias=False)
    return config, rules, ignores


def _first_layers(
    tensors: Mapping[str, Leaf], layers: str, count: int, notes: list[str]
) -> tuple[dict[str, Leaf], list[tuple[str, str]]]:
    """The tensors without layers beyond the configured ones, and those names with the reason."""
    numbers = {name: layer_of(layers, name) for name in tensors}
    stored = 1 + max((number for number in numbers.values() if number is not None), default=-1)
    if stored < count:
        raise MappingError(f"config.json says {count} layers, the files have {stored}")
    reason = f"of a layer beyond the first {count}, which config.json says"
    beyond = [
        (name, reason) for name, number in numbers.items() if number is not None and number >= count
    ]
    if beyond:
        notes.append(
            f"the files have {stored} layers, config.json says {count}: the first are taken"
        )
    left = {name for name, _ in beyond}
    return {name: leaf for name, leaf in tensors.items() if name not in left}, beyond


def sizes_of(config: BackboneConfig) -> dict[str, int]:
    """Size of each letter in the tables."""
    heads, width = config.num_heads, config.head_dim
    return {
        "D": config.model_dims,
        "N": heads,
        "J": config.num_kv_heads,
        "H": width,
        "F": config.hidden_dims,
        "NH": heads * width,
        "3H": 3 * width,
        **_latent_sizes(config),
        "X": config.moe.num_experts if config.moe else 0,
        "FX": config.moe.hidden_dims if config.moe else 0,
    }


def _latent_sizes(config: BackboneConfig) -> dict[str, int]:
    own = config.latent_attention
    still = config.head_dim - own.rotary_dims if own else 0
    return {"Z": still, "O": own.value_dims if own else 0}


def with_numbers(op: str, config: BackboneConfig) -> str:
    """An operation of the tables, with numbers in place of letters."""
    sizes = sizes_of(config)
    return re.sub(r"\b3?[A-Z]+\b", lambda letter: str(sizes[letter.group()]), op)


def _layer_rule(rule: Rule, layers: str, config: BackboneConfig) -> Rule:
    """A rule for a layer, with its full names, and with numbers in place of letters."""
    op = with_numbers(rule.op, config)
    if not config.scan_layers:
        return Rule(f"layers_{{i}}/{rule.target}", layers + rule.source, op)
    op = "; ".join([op, "stack 0"] if op else ["stack 0"])
    if config.layers_per_block == 1:
        return Rule(f"layers/{rule.target}", layers + rule.source, op)
    blocks = layers.replace("{i}", "{i}@{j}")
    return Rule(f"layers/block_{{j}}/{rule.target}", blocks + rule.source, op)


def _by_block(arrays: Mapping[str, Array], layers: str, per_block: int) -> dict[str, Array]:
    """The arrays with layer `i` renamed to `block@place`, for the rules of scanned blocks."""
    before, _, after = layers.partition("{i}")
    pattern = re.compile(rf"({re.escape(before)})(\d+)(?={re.escape(after)})")

    def renamed(name: str) -> str:
        found = pattern.match(name)
        if found is None:
            return name
        block, place = divmod(int(found.group(2)), per_block)
        return f"{before}{block}@{place}{name[found.end() :]}"

    return {renamed(name): array for name, array in arrays.items()}


def _check(tree: RuledTree, config: BackboneConfig) -> None:
    """Raise `MappingError` unless the parameters are exactly the model's, and are floats."""
    odd = [
        leaf
        for leaf in tree.leaves
        if not is_float(leaf.array.dtype) or leaf.array.dtype.itemsize == 1
    ]
    if odd:
        more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
        raise MappingError(
            f"{odd[0].target}{more}: holds {odd[0].array.dtype}; quantised weights are not "
            "supported; take the original checkpoint"
        )
    problems = shape_problems(config, {leaf.target: leaf.array.shape for leaf in tree.leaves})
    if problems:
        listed = [*problems[:20], *(["..."] if len(problems) > 20 else [])]
        raise MappingError(
            "\n  ".join(
                [f"tensors and config.json do not fit, {len(problems)} problem(s):", *listed]
            )
        )
