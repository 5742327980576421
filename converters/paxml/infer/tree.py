"""Infers facts about the decoder from the names and shapes of a PAXml tree; no values are read.

Dimensions: D model width, N heads, K heads of keys and values, H head width, F hidden width,
V words, T positions, X experts, S pipeline stages, L layers.
"""

import math
import re
from collections.abc import Mapping

from converters.arrays import LeafSpec
from converters.paxml.infer.facts import Fact, Facts, Leaves, gather
from converters.paxml.infer.norms import norm_facts
from efficientids_flax.config import NormPlace

LM = "mdl_vars/params/lm/"
FLOATS = {"float32", "bfloat16", "float16", "float64"}
_LAYER = re.compile(r"transformer/(?P<stack>(?:[^/]+/)*?)x_layers_(?P<index>\d+)/(?P<leaf>.+)")


def backbone_facts(specs: Mapping[str, LeafSpec]) -> Facts:
    """Infer facts about the decoder, with the keys of `BackboneConfig`."""
    facts = Facts()
    model = Leaves(LM, {p.removeprefix(LM): s.shape for p, s in specs.items() if p.startswith(LM)})
    _embedding_facts(facts, model)
    kinds = {spec.dtype.name for path, spec in specs.items() if path.startswith(LM)}
    if len(kinds & FLOATS) == 1:
        facts.add("param_dtype", (kinds & FLOATS).pop(), f"arrays below {LM}", sure=False)

    stacks: dict[str, dict[int, dict[str, tuple[int, ...]]]] = {}
    for path, shape in model.shapes.items():
        if match := _LAYER.fullmatch(path):
            layers = stacks.setdefault(match["stack"], {})
            layers.setdefault(int(match["index"]), {})[match["leaf"]] = shape
    if len(stacks) != 1:
        what = "no layer (x_layers_0/…)" if not stacks else f"several stacks: {sorted(stacks)}"
        facts.problems.append(f"{LM}transformer/: {what}")
        return facts
    ((stack, layers),) = stacks.items()
    root = f"{LM}transformer/{stack}x_layers_"
    if sorted(layers) != list(range(len(layers))):
        facts.problems.append(f"{root}: layers {sorted(layers)} have gaps")
        return facts
    lead = _leading_axes(facts, root, layers)
    if lead is None:
        return facts
    blocks = math.prod(lead)
    where = f"{len(layers)} x_layers of {LM}transformer/{stack}" + (
        f" with leading axes {list(lead)}" if lead else ""
    )
    facts.add("num_layers", blocks * len(layers), where)
    facts.add("scan_layers", bool(lead), where)
    facts.add("layers_per_block", len(layers) if lead else 1, where)
    experts = [
        block * len(layers) + index
        for block in range(blocks)
        for index in layers
        if "ff_layer/gate" in layers[index]
    ]
    own: dict[int, Facts] = {}
    for index, shapes in sorted(layers.items()):
        inner = {leaf: shape[len(lead) :] for leaf, shape in shapes.items()}
        own[index] = Facts()
        _layer_facts(own[index], Leaves(f"{root}{index}/", inner), experts)
    gather(facts, own)
    if not experts:
        facts.add("moe", None, f"no ff_layer/gate below {root}")
    elif "hidden_dims" not in facts.known and (width := facts.known.get("moe.hidden_dims")):
        facts.add("hidden_dims", width.value, width.where, sure=False)  # no layer has a plain MLP
    return facts


def _embedding_facts(facts: Facts, model: Leaves) -> None:
    """Facts from the embeddings, the final norm and the head."""
    head = "softmax/logits_ffn/linear/w"
    # NClassMajorSharedEmbeddingSoftmax and GShardSharedEmbeddingSoftmax have one row per word.
    gshard = "softmax/embedding/w"
    table = next((leaf for leaf in ("softmax/w", gshard) if leaf in model), head)
    if shape := model.find(facts, table, 2):
        dims, words = shape if table == head else reversed(shape)
        facts.add("model_dims", dims, model.where(table))
        facts.add("vocab_size", words, model.where(table))
    bias = "softmax/logits_ffn/bias/b" if table == head else "softmax/bias/b"
    facts.add("lm_head_bias", bias in model, f"{LM}{bias}")
    if table == gshard:
        facts.add("scale_before_logits", True, model.where(gshard))
        facts.add("loss_average", "positions", model.where(gshard), sure=False)
        facts.add("embedding_scale", "none", model.where(gshard), sure=False)
    table = "embedding_lookup/emb_var"
    facts.add("tied_embeddings", table not in model, f"{LM}{table}")
    if table in model and (shape := model.find(facts, table, 2)):
        facts.add("vocab_size", shape[0], model.where(table))
        facts.add("model_dims", shape[1], model.where(table))
    positions = "position_emb/emb_var"
    if positions in model and (shape := model.find(facts, positions, 2)):
        facts.add("position_embedding", "learned", model.where(positions))
        facts.add("max_positions", shape[0], model.where(positions))
        facts.add("model_dims", shape[1], model.where(positions))
    else:
        facts.excluded["position_embedding"] = Fact("learned", f"no {LM}{positions}")
    facts.add("final_norm", "final_ln/scale" in model, f"{LM}final_ln/scale")
    if "final_ln/scale" in model:
        norm_facts(facts, model, "final_ln", "final")


def _leading_axes(
    facts: Facts, root: str, layers: Mapping[int, Mapping[str, tuple[int, ...]]]
) -> tuple[int, ...] | None:
    """Axes before a layer's own: none, repeats [L], or pipeline stages [S] (stage-major)."""
    found = set()
    for index, leaves in layers.items():
        scales = [leaf for leaf in leaves if leaf.endswith("layer_norm/scale")]
        if not scales:
            facts.problems.append(f"{root}{index}/layer_norm/scale: missing")
        found |= {leaves[leaf][:-1] for leaf in scales}
    if len(found) > 1:
        facts.problems.append(f"{root}: layers are stacked differently: {sorted(found)}")
    return found.pop() if len(found) == 1 else None


def _layer_facts(facts: Facts, layer: Leaves, experts: list[int]) -> None:
    """Facts from one layer."""
    _attention_facts(facts, layer)
    _norm_places(facts, layer)
    if "ff_layer/gate" in layer:
        facts.add("moe.layers", experts, layer.where("ff_layer/gate"))
        if shape := layer.find(facts, "ff_layer/gate", 2):
            facts.add("model_dims", shape[0], layer.where("ff_layer/gate"))
            facts.add("moe.num_experts", shape[1], layer.where("ff_layer/gate"))
        if shape := layer.find(facts, "ff_layer/wi_0", 3):
            facts.add("moe.num_experts", shape[0], layer.where("ff_layer/wi_0"))
            facts.add("moe.hidden_dims", shape[2], layer.where("ff_layer/wi_0"))
            gate = "ff_layer/wi_gate_0"
            facts.add("moe.gated", gate in layer, layer.root + gate)
        return
    up = "ff_layer/ffn_layer1"
    if shape := layer.find(facts, f"{up}/linear/w", 2):
        facts.add("model_dims", shape[0], layer.where(f"{up}/linear/w"))
        facts.add("hidden_dims", shape[1], layer.where(f"{up}/linear/w"))
        down = "ff_layer/ffn_layer2/linear/w"
        if (found := layer.find(facts, down, 2)) and found != shape[::-1]:
            facts.problems.append(
                f"{layer.where(down)}: expected [F, D] = {list(shape[::-1])}, as"
                f" {layer.where(f'{up}/linear/w')}"
            )
    facts.add("gated_mlp", f"{up}_gate/linear/w" in layer, f"{layer.root}{up}_gate/linear/w")
    facts.add("mlp_bias", f"{up}/bias/b" in layer, f"{layer.root}{up}/bias/b")


def _attention_facts(facts: Facts, layer: Leaves) -> None:
    """Facts from the projections of one layer."""
    at = "self_attention/"
    fused = f"{at}combined_qkv/w" in layer
    facts.add("fused_qkv", fused, f"{layer.root}{at}combined_qkv/w")
    query = f"{at}combined_qkv" if fused else f"{at}query"
    facts.add("qkv_bias", f"{query}/b" in layer, f"{layer.root}{query}/b")
    facts.add("attention_out_bias", f"{at}post/b" in layer, f"{layer.root}{at}post/b")
    shape = layer.find(facts, f"{query}/w", 3 + fused)
    if shape:
        where = layer.where(f"{query}/w")
        for key, size in zip(("model_dims", "num_heads", "head_dim"), shape[-3:], strict=True):
            facts.add(key, size, where)
        if fused:
            facts.add("num_kv_heads", shape[-2], where)
            facts.add("multi_query", False, where)
        post = layer.find(facts, f"{at}post/w", 3)
        if post and post not in (shape[-3:], (*shape[-2:], shape[-3])):  # [D, N, H], [N, H, D]
            facts.problems.append(
                f"{layer.where(f'{at}post/w')}: expected [D, N, H] = {list(shape[-3:])}, or"
                f" [N, H, D], as {where}"
            )
    key = f"{at}key/w"
    if not fused and (shape := layer.shapes.get(key)) is not None:
        single = len(shape) == 2
        facts.add("multi_query", single, layer.where(key))
        facts.add("num_kv_heads", 1 if single else shape[1], layer.where(key))
        facts.add("head_dim", shape[-1], layer.where(key))
        if layer.shapes.get(f"{at}value/w", shape) != shape:
            facts.problems.append(f"{layer.where(f'{at}value/w')}: expected {list(shape)} as {key}")
    elif not fused:
        facts.problems.append(f"{layer.root}{key}: missing")
    scale = f"{at}per_dim_scale/per_dim_scale"
    if scale in layer:
        facts.add("query_scaling", "per_dim_scale", layer.where(scale))
    else:
        facts.excluded["query_scaling"] = Fact("per_dim_scale", f"no {layer.root}{scale}")
    bias = f"{at}relative_bias/wrb"
    if bias not in layer:
        facts.add("relative_bias", None, f"no {layer.root}{bias}")
    elif shape := layer.find(facts, bias, 2):
        facts.add("relative_bias.num_buckets", shape[1], layer.where(bias))
    relative = f"{at}pos_proj/w"
    if relative not in layer:
        facts.add("relative_key_dims", None, f"no {layer.root}{relative}")
    elif shape := layer.find(facts, relative, 3):
        facts.add("relative_key_dims", shape[0], layer.where(relative))
    norm = f"{at}layer_norm_q/scale"
    facts.add("qk_norm", "per_head" if norm in layer else "none", layer.root + norm)
    if norm in layer:  # Praxis applies rotary positions before the norm
        facts.add("qk_norm_after_rotary", True, layer.root + norm)
        norm_facts(facts, layer, norm.removesuffix("/scale"), "query_key")


def _norm_places(facts: Facts, layer: Leaves) -> None:
    """Facts about the places of the norms in one layer.

    A feed-forward without its own norm runs in parallel with attention (saxml's
    `ParallelTransformer`). It reads the result of the layer's only norm, or of its second one.
    """
    hybrid = "pre_layer_norm/scale" in layer
    own = [name for name in ("pre_layer_norm", "layer_norm") if f"ff_layer/{name}/scale" in layer]
    feed = "moe" if "ff_layer/gate" in layer else "mlp"
    parallel = not own
    where = f"no {layer.root}ff_layer/layer_norm"
    facts.add("parallel_residual", parallel, where, sure=False)
    facts.add("shared_norm", parallel and not hybrid, where, sure=parallel)
    norms: list[tuple[str, NormPlace]] = [
        ("pre_layer_norm" if hybrid else "layer_norm", "attention")
    ]
    if own:
        norms.append((f"ff_layer/{own[0]}", feed))
    elif hybrid:
        norms.append(("post_layer_norm", feed))
    for norm, place in norms:
        inner = "ff_layer/" if norm.startswith("ff_layer/") else ""
        if parallel:
            there = f"{norm}/scale" in layer
            facts.add("norm_policy", "pre", layer.where(f"{norm}/scale") if there else where)
        elif norm.endswith("pre_layer_norm"):
            facts.add("norm_policy", "primer_hybrid", layer.where(f"{norm}/scale"))
        elif layer.find(facts, f"{norm}/scale", 1):
            facts.add("norm_policy", "pre", layer.where(f"{norm}/scale"), sure=False)
            facts.excluded["norm_policy"] = Fact(
                "primer_hybrid", f"no {layer.root}{inner}pre_layer_norm"
            )
        norm_facts(facts, layer, norm, place)
