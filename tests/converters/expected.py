"""Computes the expected result of a conversion the plain way: in memory, without tables or tiles.

It follows the table of names in the docs, not `converters.rules`, so that a mistake in one of the
two shows. Letters: L layers, S pipeline stages, K layers in one block or stage.
"""

import math
import re
from collections.abc import Iterable, Mapping

import numpy as np

Tree = dict[str, np.ndarray]  # '/'-joined path -> values

# Parts of PAXml's names -> our names; the first that fits applies.
NAMES = (
    (r"^embedding_lookup/emb_var$", "embedder/embedding"),
    (r"^position_emb/emb_var$", "position_embedding/embedding"),
    (r"^final_ln/", "final_norm/"),
    (r"^softmax/logits_ffn/(?:linear|bias)/", "lm_head/"),
    (r"^softmax/logits_ffn_(item|cluster)/linear/", r"\1_embedding/"),
    (r"^softmax/item_(input|output)_dnn/mlp_layers_(\d+)/(?:linear|bias)/",
     r"item_\1_adapter/layers_\2/"),
    (r"self_attention/per_dim_scale/per_dim_scale$", "attention/per_dim_scale"),
    (r"self_attention/relative_bias/wrb$", "attention/relative_bias/embedding"),
    (r"self_attention/combined_qkv/", "attention/qkv/"),
    (r"self_attention/post/", "attention/out/"),
    (r"self_attention/", "attention/"),
    (r"ff_layer/(pre_|post_|)layer_norm/", r"\1mlp_norm/"),
    (r"ff_layer/ffn_layer1_gate/(?:linear|bias)/", "mlp/gate/"),
    (r"ff_layer/ffn_layer1/(?:linear|bias)/", "mlp/up/"),
    (r"ff_layer/ffn_layer2/(?:linear|bias)/", "mlp/down/"),
    (r"ff_layer/gate$", "moe/router/w"),
    (r"ff_layer/wi_0$", "moe/up/w"),
    (r"ff_layer/wi_gate_0$", "moe/gate/w"),
    (r"ff_layer/wo_0$", "moe/down/w"),
    (r"(?:^|(?<=/))(pre_|post_|)layer_norm/", r"\1attention_norm/"),
)  # fmt: skip
ENDS = {"w": "kernel", "b": "bias"}


def named(path: str) -> str:
    """The name in the output of a parameter, given its name below `lm/` or below its layer."""
    for pattern, name in NAMES:
        path, count = re.subn(pattern, name, path)
        if count:
            break
    head, _, end = path.rpartition("/")
    return f"{head}/{ENDS.get(end, end)}"


def family_of(params: Iterable[str]) -> str:
    """The family of a model, by the names of its parameters."""
    names = list(params)
    if not any(name.startswith("lm/transformer/") for name in names):
        return "generic"
    recommends = any("/softmax/logits_ffn_item/" in name for name in names)
    return "efficientids" if recommends else "transformer_lm"


def renamed(params: Mapping[str, np.ndarray], family: str, scan_layers: bool | None = None) -> Tree:
    """A tree of parameters, or of moments with one per parameter, with the output's names."""
    if family == "generic":
        return dict(params)
    recommender = family == "efficientids"
    separate: dict[str, dict[int, np.ndarray]] = {}
    stacked: Tree = {}
    top: Tree = {}
    for path, values in params.items():
        name = path.removeprefix("lm/")
        layer = re.fullmatch(
            r"transformer/(pipeline/body/)?(repeat/sub/)?x_layers_(\d+)/(.+)", name
        )
        if layer is None:
            own = not name.startswith(("softmax/logits_ffn_", "softmax/item_"))
            top["pretrained_lm/" * (recommender and own) + named(name)] = values
            continue
        pipeline, repeat, number, rest = layer.groups()
        place = named(rest)
        if repeat:
            assert pipeline is None and number == "0"
            stacked[place] = values
        elif pipeline:  # [S, ...] for layer k of a stage: layer s * K + k of the model
            per_stage = 1 + max(
                int(n) for n in re.findall(r"body/x_layers_(\d+)/", " ".join(params))
            )
            for stage, part in enumerate(values):
                separate.setdefault(place, {})[stage * per_stage + int(number)] = part
        else:
            separate.setdefault(place, {})[int(number)] = values
    scanned = scan_layers
    if scanned is None:
        scanned = bool(stacked) or any("/pipeline/" in path for path in params)
    prefix = "pretrained_lm/" if recommender else ""
    for place, values in stacked.items():
        separate[place] = dict(enumerate(values))
    for place, layers in separate.items():
        if scanned:
            top[f"{prefix}layers/{place}"] = np.stack([layers[i] for i in range(len(layers))])
        else:
            top |= {f"{prefix}layers_{i}/{place}": part for i, part in layers.items()}
    return top


def optimizer(
    states: Mapping[str, np.ndarray],
    betas: tuple[float, float],
    family: str,
    scan_layers: bool | None,
) -> Tree:
    """`opt_states` (below its own name) as `state/optimizer/...`, below that name."""
    fields: dict[str, dict[str, dict[str, Tree]]] = {}  # transform -> group -> field -> variable
    for path, values in states.items():
        learner, *keys = path.split("/")
        assert learner == "0"
        group = keys.pop(0) if not keys[0].isdigit() else ""
        at = next(i for i, key in enumerate(keys) if not key.isdigit())
        transform, field, variable = "/".join(keys[:at]), keys[at], "/".join(keys[at + 2 :])
        fields.setdefault(transform, {}).setdefault(group, {}).setdefault(field, {})[variable] = (
            values
        )
    found: Tree = {}
    for transform, groups in fields.items():
        kinds = set().union(*(set(own) for own in groups.values()))
        counts = {group: own["count"][""] for group, own in groups.items() if "count" in own}
        if kinds == {"count"}:
            if "/" in transform:  # the second half of SGD's state
                found["schedule/count"] = _one(counts)
            continue
        name = (
            "momentum" if "trace" in kinds
            else "ema" if "ema" in kinds
            else "sharded_adafactor" if "vr" in kinds
            else "adam"
        )  # fmt: skip
        if counts:
            found[f"{name}/count"] = _one(counts)
        if name in ("adam", "sharded_adafactor"):
            found["schedule/count"] = _one(counts)
        for field in sorted(kinds - {"count"}):
            place, beta = f"{name}/{field}", None
            if name == "adam":
                place = {"m": "adam/mu", "v": "adam/nu"}[field]
                beta = betas[field == "v"]
            whole = {
                variable: values if beta is None else debiased(values, counts[group], beta)
                for group, own in groups.items()
                for variable, values in own.get(field, {}).items()
            }
            found |= {
                f"{place}/{key}": values
                for key, values in renamed(whole, family, scan_layers).items()
            }
    return found


def debiased(moment: np.ndarray, count: np.ndarray, beta: float) -> np.ndarray:
    """optax's moment from Praxis' corrected one; `count` has the stacked layers' axes, if any."""
    count = np.asarray(count, np.float64)
    factor = (1.0 - np.power(beta, count)).reshape(count.shape + (1,) * (moment.ndim - count.ndim))
    return (moment.astype(np.float64) * factor).astype(moment.dtype)


def converted(
    leaves: Mapping[str, np.ndarray],
    betas: tuple[float, float] = (0.9, 0.999),
    scan_layers: bool | None = None,
) -> Tree:
    """All targets (`params/...`, `state/...`) of a checkpoint; `leaves` by canonical path."""
    found: Tree = {}
    params = _below(leaves, "mdl_vars/params/")
    family = family_of(params)
    found |= _under("params/", renamed(params, family, scan_layers))
    states = _below(leaves, "opt_states/")
    found |= _under("state/optimizer/", optimizer(states, betas, family, scan_layers))
    for path, values in leaves.items():
        if path == "step" or path.startswith("extra_state/"):
            found[f"state/{path}"] = values
        elif path.startswith("mdl_vars/") and not path.startswith("mdl_vars/params/"):
            found["state/collections/" + path.removeprefix("mdl_vars/")] = values
    return found


def difference(found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> list[str]:
    """The differences of two trees, bit for bit, one per line."""
    lines = [f"{path}: missing" for path in wanted if path not in found]
    lines += [f"{path}: unexpected" for path in found if path not in wanted]
    for path in found.keys() & wanted.keys():
        a, b = np.asarray(found[path]), np.asarray(wanted[path])
        if a.shape != b.shape or a.dtype != b.dtype:
            lines.append(f"{path}: {a.shape} {a.dtype}, expected {b.shape} {b.dtype}")
        elif a.tobytes() != b.tobytes():
            lines.append(
                f"{path}: {np.count_nonzero(a != b)} of {math.prod(a.shape)} values differ"
            )
    return sorted(lines)


def _one(counts: Mapping[str, np.ndarray]) -> np.ndarray:
    values = np.unique(np.concatenate([np.atleast_1d(count) for count in counts.values()]))
    assert values.size == 1, counts
    return values[0]


def _below(tree: Mapping[str, np.ndarray], prefix: str) -> Tree:
    return {path.removeprefix(prefix): v for path, v in tree.items() if path.startswith(prefix)}


def _under(prefix: str, tree: Mapping[str, np.ndarray]) -> Tree:
    return {prefix + path: values for path, values in tree.items()}
