"""Values and keys that mean the same in all families."""

from collections.abc import Mapping
from typing import Any

# fmt: off
# transformers' name (`activations.py`, ACT2FN) -> ours. `prelu` and `xielu` are missing, as they
# have parameters.
ACTIVATIONS = {
    "silu": "silu", "swish": "silu", "gelu": "gelu", "gelu_python": "gelu",
    "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_python_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh", "gelu_accurate": "gelu_tanh", "relu": "relu", "relu2": "squared_relu",
    "relu6": "relu6", "leaky_relu": "leaky_relu", "sigmoid": "sigmoid", "tanh": "tanh",
    "linear": "identity", "mish": "mish", "quick_gelu": "quick_gelu", "laplace": "laplace",
    "gelu_10": "gelu_10", "hardswish": "hard_silu", "sqrtsoftplus": "sqrt_softplus",
}

# Keys that do not affect hidden states and logits: about the file's source, tokens, training,
# generation, other heads.
IRRELEVANT = frozenset({
    "_name_or_path", "name_or_path", "architectures", "auto_map", "model_type",
    "transformers_version", "_commit_hash", "transformers.js_config", "unsloth_fixed",
    "unsloth_version", "model_max_length", "tokenizer_class", "_attn_implementation",
    "_attn_implementation_autoset", "attn_implementation", "_attn_implementation_internal",
    "_flash_attn_2_enabled", "_experts_implementation_internal", "experts_implementation",
    "use_flash_attn", "use_mrope", "torch_dtype", "dtype", "initializer_range",
    "embedding_initializer_range", "initializer_factor", "use_cache", "cache_implementation",
    "gradient_checkpointing", "pretraining_tp", "return_dict", "output_hidden_states",
    "output_attentions", "torchscript", "use_bfloat16", "pruned_heads", "chunk_size_feed_forward",
    "is_decoder", "is_encoder_decoder", "cross_attention_hidden_size", "tie_encoder_decoder",
    "tie_last_hidden_states", "n_ctx", "task_specific_params", "problem_type", "id2label",
    "label2id", "num_labels", "finetuning_task", "prefix", "classifier_dropout",
    "classifier_bias", "decoder_start_token_id", "sep_token_id", "bos_token_id", "eos_token_id",
    "pad_token_id", "unk_token_id", "boi_token_index", "eoi_token_index", "image_token_index",
    "summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels",
    "summary_first_dropout", "summary_last_dropout", "_sliding_window_pattern",
    # generation
    "max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups",
    "diversity_penalty", "temperature", "top_k", "top_p", "typical_p", "epsilon_cutoff",
    "eta_cutoff", "repetition_penalty", "encoder_repetition_penalty", "length_penalty",
    "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids", "suppress_tokens",
    "begin_suppress_tokens", "num_return_sequences", "output_scores", "return_dict_in_generate",
    "forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values",
    "exponential_decay_length_penalty", "generation_config",
})
CAUSAL = "is_causal"  # the masks of transformers read it in all families
# Keys that the base class or the masks of transformers read in all families -> supported values.
REFUSED: Mapping[str, tuple[Any, ...]] = {
    "per_layer_config": (None, {}),  # other sizes in some layers
}
# fmt: on
