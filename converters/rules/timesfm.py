"""The table of a TimesFM tree (`timesfm.patched_decoder`, releases 1.x): PAXml leaf -> Flax leaf.

Letters: D model width, F hidden width, N heads, H head width, P points in a patch, O numbers in the
forecast of one patch, G frequencies, U rank of the LoRA weights.
"""

from collections.abc import Iterable, Mapping

from converters.rules.language import Rule
from converters.rules.transformer_lm import LAYER

STACK = "stacked_transformer_layer/"
MARKS = (f"{STACK}x_layers_", "input_ff_layer/hidden_layer/", "horizon_ff_layer/hidden_layer/")
LORA_LEAVES = ("lora_a", "lora_b", "dora_m")

# fmt: off
TOP = (
    # target                                          source                            shape
    Rule("input_block/hidden/kernel",     "input_ff_layer/hidden_layer/linear/w"),      # [2P, F]
    Rule("input_block/hidden/bias",       "input_ff_layer/hidden_layer/bias/b"),        # [F]
    Rule("input_block/output/kernel",     "input_ff_layer/output_layer/linear/w"),      # [F, D]
    Rule("input_block/output/bias",       "input_ff_layer/output_layer/bias/b"),        # [D]
    Rule("input_block/residual/kernel",   "input_ff_layer/residual_layer/linear/w"),    # [2P, D]
    Rule("input_block/residual/bias",     "input_ff_layer/residual_layer/bias/b"),      # [D]
    Rule("frequency_embedding/embedding", "freq_emb/emb_var"),                          # [G, D]
    Rule("horizon_block/hidden/kernel",   "horizon_ff_layer/hidden_layer/linear/w"),    # [D, F]
    Rule("horizon_block/hidden/bias",     "horizon_ff_layer/hidden_layer/bias/b"),      # [F]
    Rule("horizon_block/output/kernel",   "horizon_ff_layer/output_layer/linear/w"),    # [F, O]
    Rule("horizon_block/output/bias",     "horizon_ff_layer/output_layer/bias/b"),      # [O]
    Rule("horizon_block/residual/kernel", "horizon_ff_layer/residual_layer/linear/w"),  # [D, O]
    Rule("horizon_block/residual/bias",   "horizon_ff_layer/residual_layer/bias/b"),    # [O]
)
# LoRA weights that are kept: `W + A B^T`. The output projection has A and B exchanged.
LORA = (
    Rule("mlp/up/lora_a",                 "ff_layer/ffn_layer1/linear/lora_a"),         # [D, U]
    Rule("mlp/up/lora_b",                 "ff_layer/ffn_layer1/linear/lora_b", "transpose 1 0"),
    Rule("mlp/down/lora_a",               "ff_layer/ffn_layer2/linear/lora_a"),         # [F, U]
    Rule("mlp/down/lora_b",               "ff_layer/ffn_layer2/linear/lora_b", "transpose 1 0"),
    Rule("attention/{query|key|value}/lora_a", "self_attention/{query|key|value}/lora_a"),  # [D, U]
    Rule("attention/{query|key|value}/lora_b", "self_attention/{query|key|value}/lora_b",
         "transpose 1 0; split 1 N H"),                                                 # [N H, U]
    Rule("attention/out/lora_a",          "self_attention/post/lora_b", "split 0 N H"),
    Rule("attention/out/lora_b",          "self_attention/post/lora_a", "transpose 1 0"),
    Rule("mlp/up/dora_m",                 "ff_layer/ffn_layer1/linear/dora_m"),         # [1, F]
    Rule("mlp/down/dora_m",               "ff_layer/ffn_layer2/linear/dora_m"),         # [1, D]
    Rule("attention/{query|key|value}/dora_m", "self_attention/{query|key|value}/dora_m"),
    Rule("attention/out/dora_m",          "self_attention/post/dora_m"),                # [1, N, H]
)
# fmt: on
# A layer has these parts of the decoder's table: Praxis' `Transformer` without gate and experts.
PARTS = ("attention/", "attention_norm/", "mlp_norm/", "mlp/up/", "mlp/down/")


def prefix_of(paths: Iterable[str]) -> str | None:
    """The prefix of all names in a TimesFM tree; None for other trees.

    It is '', or 'core_layer/' if the TimesFM package fine-tuned the model.
    """
    places: dict[str, set[str]] = {mark: set() for mark in MARKS}
    for path in paths:
        for mark, found in places.items():
            before, there, _ = f"/{path}".partition(f"/{mark}")
            if there:
                found.add(f"{before}/".lstrip("/"))
    common = set.intersection(*places.values())
    return common.pop() if len(common) == 1 else None


def rules(
    shapes: Mapping[str, tuple[int, ...]], scan_layers: bool | None = None
) -> tuple[Rule, ...]:
    """Make the table for a tree.

    Args:
        shapes: parameter path -> shape; N and H are taken from them.
        scan_layers: whether the layers become stacked.
    """
    prefix = prefix_of(shapes) or ""
    layer = [rule for rule in LAYER if rule.target.startswith(PARTS)]
    layer += [Rule(r.target, r.source, _numbered(r.op, shapes)) for r in LORA]
    into, op = ("decoder/layers/", "stack 0") if scan_layers else ("decoder/layers_{i}/", "")
    place = f"{prefix}{STACK}x_layers_{{i}}/"
    return (
        *(Rule(rule.target, prefix + rule.source, rule.op) for rule in TOP),
        *(
            Rule(into + r.target, place + r.source, "; ".join(filter(None, (r.op, op))))
            for r in layer
        ),
    )


def _numbered(op: str, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The operation with N and H replaced by numbers."""
    kernels = (shape for path, shape in shapes.items() if path.endswith("self_attention/query/w"))
    heads, width = next((s[-2:] for s in kernels if len(s) == 3), (1, 1))
    return op.replace("N H", f"{heads} {width}")
