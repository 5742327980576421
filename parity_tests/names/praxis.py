"""Names of Praxis (and of the original EfficientIDs system, which is written on it).

Covers `TransformerLm`, `StackedTransformer`, `Transformer`, `TransformerFeedForward(Moe)`,
`DotProductAttention` and similar classes of Praxis 1.4.0. The result of a layer has the layer's
path. If there are several results, the n-th ends in `/n`; the n-th repeated call ends in `#n`.
"""

from parity_tests.names.table import (
    Ignored,
    LayerForm,
    Name,
    NameTable,
    pipelined,
    repeated,
    unstacked,
)

FORMS = (
    LayerForm(r"lm/transformer/x_layers_(?P<place>\d+)", unstacked),
    LayerForm(r"lm/transformer/repeat/sub/x_layers_(?P<place>\d+)", repeated),
    LayerForm(r"lm/transformer/pipeline/body/x_layers_(?P<place>\d+)", pipelined),
    # The result of a whole block or stage is the output of its last layer.
    LayerForm(r"lm/transformer/repeat/sub", repeated),
    LayerForm(r"lm/transformer/pipeline/body", pipelined),
)

# fmt: off
INPUTS = (
    #    recorded                                  ours                       axes, op
    Name("act/text_embeddings",                    "word_inputs",             "BTD"),
    Name("act/item_embeddings_raw",                "item_rows",               "BTE"),
    Name("act/item_embeddings_input_dnn",          "item_inputs",             "BTD"),
    Name("act/interleaved_no_pos",                 "interleaved",             "BTD"),
    Name("lm/softmax/einsum",                      "word_rows",               "BTD"),
    Name("lm/softmax/array_lookup",                "word_rows",               "BTD"),
    Name("lm/softmax/emb_lookup",                  "word_embeddings",         "BTD"),
    Name("lm/embedding_lookup/einsum",             "word_rows",               "BTD"),
    Name("lm/embedding_lookup/array_lookup",       "word_rows",               "BTD"),
    Name("lm/embedding_lookup/emb_lookup",         "word_embeddings",         "BTD"),
    Name("lm/position_emb/einsum",                 "position_embeddings",     "BTD"),
    Name("lm/position_emb",                        "position_embeddings",     "BTD"),
    Name("act/position_emb",                       "position_embeddings",     "BTD"),
    Name("mlm_augmenter/0",                        "outputs/augmented_labels", "BT"),
    Name("mlm_augmenter/1",                        "outputs/augmented_pos",   "BT"),
    Name("lm/_prepare_input",                      "layer_input",             "BTD"),
    Name("act/transformer_input",                  "layer_input",             "BTD"),
    Name("act/segment_mask",                       "mask_full",               "B1TS", "mask"),
)

LAYERS = (
    Name("layer_norm",                             "attention_norm",          "BTD", when="pre"),
    Name("pre_layer_norm",                         "pre_attention_norm",      "BTD", when="hybrid"),
    Name("pre_layer_norm",                         "attention_norm",          "BTD", when="beside"),
    Name("self_attention/combined_qkv/einsum",     "attention/qkv/product",   "CBTNH"),
    Name("self_attention/combined_qkv/0",          "attention/qkv",           "BTNH", "part 0"),
    Name("self_attention/combined_qkv/1",          "attention/qkv",           "BTNH", "part 1"),
    Name("self_attention/combined_qkv/2",          "attention/qkv",           "BTNH", "part 2"),
    Name("self_attention/query/einsum",            "attention/query/product", "BTNH"),
    Name("self_attention/query",                   "attention/query",         "BTNH"),
    Name("self_attention/key/einsum",              "attention/key/product",   "BTJH"),
    Name("self_attention/key/linear",              "attention/key/product",   "BTJH"),
    Name("self_attention/key/linear/einsum",       "attention/key/product",   "BTJH"),
    Name("self_attention/key",                     "attention/key",           "BTJH"),
    Name("self_attention/value/einsum",            "attention/value/product", "BTJH"),
    Name("self_attention/value/linear",            "attention/value/product", "BTJH"),
    Name("self_attention/value/linear/einsum",     "attention/value/product", "BTJH"),
    Name("self_attention/value",                   "attention/value",         "BTJH"),
    Name("self_attention/layer_norm_q",            "attention/query_norm",    "BTNH"),
    Name("self_attention/layer_norm_k",            "attention/key_norm",      "BTJH"),
    Name("self_attention/rotary_position_emb",     "attention/rotated_query", "BTNH"),
    Name("self_attention/rotary_position_emb#1",   "attention/rotated_key",   "BTJH"),
    Name("self_attention/per_dim_scale",           "attention/scaled_query",  "BTNH"),
    Name("self_attention/_scale_query",            "attention/scaled_query",  "BTNH", "scale"),
    Name("self_attention/pos_emb",                 "attention/relative_key/waves", "1LP", "far"),
    Name("self_attention/pos_proj/einsum",         "attention/relative_key/keys", "1LNH", "far"),
    Name("self_attention/pos_proj",                "attention/relative_key/keys", "1LNH", "far"),
    Name("self_attention/qk_einsum",               "attention/logits",        "BNTS", "scale"),
    Name("self_attention/relative_bias",           "attention/relative_bias", "BNTS", "shared"),
    Name("self_attention/_cap_logits",             "attention/logits",        "BNTS", "cap"),
    Name("self_attention/atten_dropout",           "attention/probs",         "BNTS", "probs"),
    Name("self_attention/1",                       "attention/probs",         "BNTS", "probs"),
    Name("1/self_atten",                           "attention/probs",         "BNTS", "probs"),
    Name("self_attention/pv_einsum",               "attention/mixed",         "BTNH", when="heads"),
    Name("self_attention/pv_einsum",               "attention/mixed",        "BNTH", "swap", "mqa"),
    Name("self_attention/post/einsum",             "attention/out/product",   "BTD"),
    Name("self_attention/post",                    "attention/out",           "BTD"),
    Name("self_attention/0",                       "attention",               "BTD"),
    Name("layer_norm",                             "attention_norm",          "BTD", when="post"),
    Name("post_layer_norm",                        "post_attention_norm",     "BTD", when="hybrid"),
    Name("post_layer_norm",                        "mlp_norm",                "BTD", when="beside"),
    Name("residual_dropout",                       "attention",               "BTD", when="pre"),
    Name("residual_dropout",                       "attention_norm",          "BTD", when="post"),
    Name("residual_dropout",                       "post_attention_norm",     "BTD", when="hybrid"),
    Name("ff_layer/pre_layer_norm",                "pre_mlp_norm",            "BTD", when="hybrid"),
    Name("ff_layer/layer_norm",                    "mlp_norm",                "BTD", when="pre"),
    # A parallel feed-forward has no norm of its own; what is recorded there is its input.
    Name("ff_layer/layer_norm",                    "attention_norm",          "BTD", when="beside"),
    Name("ff_layer/pre_layer_norm",                "mlp_norm",                "BTD", when="beside"),
    Name("ff_layer/post_layer_norm",               "mlp",                     "BTD", when="beside"),
    Name("ff_layer/router_logits",                 "moe/router_logits",       "GUX"),
    Name("ff_layer/routing/dispatch",              "moe/dispatch",            "GUXP"),
    Name("ff_layer/routing/combine",               "moe/combine",             "GUXP"),
    Name("ff_layer/routing/choice",                "moe/dispatch",            "GXPU", "choice"),
    Name("ff_layer/routing/gate",                  "moe/combine",             "GXP", "gate"),
    Name("ff_layer/routing/loss",                  "moe/load_balance",        ""),
    Name("ff_layer/activation",                    "moe/activated",           "XGPF"),
    Name("ff_layer/ffn_layer1/linear/einsum",      "mlp/up/product",          "BTF"),
    Name("ff_layer/ffn_layer1/linear",             "mlp/up/product",          "BTF"),
    Name("ff_layer/ffn_layer1/bias",               "mlp/up",                  "BTF"),
    Name("ff_layer/ffn_layer1/activation",         "mlp/up",                  "BTF", when="gated"),
    Name("ff_layer/ffn_layer1",                    "mlp/up",                  "BTF", when="gated"),
    Name("ff_layer/ffn_layer1/activation",         "mlp/activated",           "BTF", when="plain"),
    Name("ff_layer/ffn_layer1",                    "mlp/activated",           "BTF", when="plain"),
    Name("ff_layer/ffn_layer1_gate/linear/einsum", "mlp/gate/product",        "BTF"),
    Name("ff_layer/ffn_layer1_gate/linear",        "mlp/gate/product",        "BTF"),
    Name("ff_layer/ffn_layer1_gate/bias",          "mlp/gate",                "BTF"),
    Name("ff_layer/ffn_layer1_gate/activation",    "mlp/activated",           "BTF"),
    Name("ff_layer/ffn_layer1_gate",               "mlp/activated",           "BTF"),
    Name("ff_layer/relu_dropout",                  "mlp/hidden",              "BTF"),
    Name("ff_layer/relu_dropout",                  "moe/hidden",              "XGPF"),
    Name("ff_layer/ffn_layer2/linear/einsum",      "mlp/down/product",        "BTD"),
    Name("ff_layer/ffn_layer2/linear",             "mlp/down/product",        "BTD"),
    Name("ff_layer/ffn_layer2/bias",               "mlp/down",                "BTD"),
    Name("ff_layer/ffn_layer2/activation",         "mlp/down",                "BTD"),
    Name("ff_layer/ffn_layer2",                    "mlp/down",                "BTD"),
    Name("ff_layer/layer_norm",                    "mlp_norm",                "BTD", when="post"),
    Name("ff_layer/post_layer_norm",               "post_mlp_norm",           "BTD", when="hybrid"),
    Name("ff_layer/residual_dropout",              "mlp",                     "BTD", when="pre"),
    Name("ff_layer/residual_dropout",              "moe",                     "BTD", when="pre"),
    Name("ff_layer/residual_dropout",              "mlp_norm",                "BTD", when="post"),
    Name("ff_layer/residual_dropout",              "post_mlp_norm",           "BTD", when="hybrid"),
    Name("ff_layer",                               "mlp_output",              "BTD", when="beside"),
    Name("ff_layer",                               "mlp",                     "BTD", when="beside"),
    Name("ff_layer",                               "",                        "BTD"),
    Name("0",                                      "",                        "BTD"),
)

OUTPUTS = (
    Name("lm/transformer/repeat",                  "layers_{last}",           "BTD"),
    Name("lm/transformer/pipeline",                "layers_{last}",           "BTD"),
    Name("lm/transformer",                         "layers_{last}",           "BTD"),
    Name("act/transformer_output",                 "layers_{last}",           "BTD"),
    Name("lm/final_ln",                            "final_norm",              "BTD"),
    Name("act/final_ln_output",                    "final_norm",              "BTD"),
    Name("act/item_table_after_dnn",               "item_table",              "IW"),
    Name("act/item_output_dnn_output",             "query",                   "BTW"),
    Name("lm/softmax/logits_ffn/linear/einsum",    "lm_head/product",         "BTV"),
    Name("lm/softmax/logits_ffn/linear",           "lm_head/product",         "BTV"),
    Name("lm/softmax/logits_ffn/bias",             "lm_head",                 "BTV"),
    Name("lm/softmax/logits_ffn/activation",       "lm_head",                 "BTV"),
    Name("lm/softmax/logits_ffn",                  "lm_head",                 "BTV"),
    Name("lm/softmax/activation",                  "lm_head",                 "BTV"),
    Name("lm/softmax/bias",                        "lm_head",                 "BTV"),
    Name("act/word_logits_raw",                    "word_logits",             "BTV"),
    Name("act/first_pass_logits",                  "first_pass_logits",       "BTV"),
    Name("act/label_cluster_ids",                  "label_clusters",          "BT"),
    Name("act/label_cluster_members",              "label_members",           "BTM", "members"),
    Name("act/in_cluster_logits",                  "member_logits",           "BTM"),
    Name("act/full_softmax_logits",                "outputs/logits",          "BTV"),
    Name("act/eval_logits",                        "outputs/logits",          "BTV"),
)
# fmt: on

# Results of the head by name; Praxis repeats them at each level that passes them on.
RESULTS = (
    # name, axes, kind
    ("logits", "BTV", "activations"),
    ("log_probs", "BTV", "activations"),
    ("per_example_argmax", "BT", "activations"),
    ("per_example_xent", "BT", "activations"),
    ("per_token_xent", "BT", "activations"),
    ("per_sequence_xent", "B", "activations"),
    ("total_xent", "", "loss"),
    ("total_weight", "", "loss"),
    ("avg_xent", "", "loss"),
    ("avg_xent_weight", "", "loss"),
    ("z_loss", "", "loss"),
    ("aux_loss", "", "loss"),
    ("aux_loss_weight", "", "loss"),
    ("total_loss", "", "loss"),
    ("accuracy", "", "metrics"),
    ("top10_indices", "BTA", "metrics"),
    ("augmented_labels", "BT", "activations"),
    ("augmented_pos", "BT", "activations"),
)
LEVELS = ("lm/softmax/", "lm/", "outputs/")
RANKING = ("recall", "mrr", "ndcg")
METRICS = (
    "total_loss", "avg_xent", "log_pplx", "aux_loss", "num_predictions",
    "fraction_of_correct_next_step_preds", "fraction_of_correct_preds", "num_tokens", "num_seqs",
    *(f"{name}_at_{{n}}" for name in RANKING),
)  # fmt: skip

IGNORED = (
    Ignored("outputs/summary/*", "a mean of arrays that are compared, some of them NaN"),
    Ignored("outputs/check/*", "the recorder's own check, of two runs of the original"),
    Ignored("*/prng_key", "random bits"),
)


def _results() -> list[Name]:
    found = [
        Name(f"{level}{name}", f"outputs/{name}", axes, kind=kind)
        for name, axes, kind in RESULTS
        for level in LEVELS
    ]
    for place in ("1/", "outputs/per_example/"):
        found.append(Name(f"{place}labels", "outputs/labels", "BT"))
        found.append(Name(f"{place}predicted_labels", "outputs/per_example_argmax", "BT"))
        found.append(Name(f"{place}augmented_labels", "outputs/augmented_labels", "BT"))
        found.append(Name(f"{place}per_sequence_xent", "outputs/per_sequence_xent", "B"))
        found.append(Name(f"{place}scores", "outputs/per_sequence_xent", "B", "negative"))
    for name in METRICS:
        kind = "loss" if name in METRICS[:4] else "metrics"
        for part, number in (("value", 0), ("weight", 1)):
            ours = f"metrics/{name}/{part}"
            found.append(Name(f"metrics/{name}/{part}", ours, "", kind=kind))
            found.append(Name(f"0/{name}/{number}", ours, "", kind=kind))
    return found


PRAXIS = NameTable(FORMS, INPUTS, LAYERS, (*OUTPUTS, *_results()), IGNORED)
