"""Multimodal models, whose text part is one of the families.

For text alone, such a model computes the same as its language model: the three positions of Qwen's
images (`mrope`) are equal then.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from efficientids_flax.backbone.presets.families import llama_like
from efficientids_flax.backbone.presets.families.family import Family


@dataclass(frozen=True)
class Wrapper:
    """A `model_type` with a `text_config`.

    Attributes:
        text: model type of the text part, if `text_config` does not name one.
        always: the text part has this type, whatever `text_config` names.
        tied: whether the head is tied, if the wrapper does not set it.
        either: the head is also tied if `text_config` sets it.
        causal: the wrapper's `is_causal` overrides that of the text part.
        flat: in older files, the keys of all parts are side by side at the top level.
        only: as in `Family`, in addition to that of the text part.
    """

    text: str
    always: bool = False
    tied: bool = False
    either: bool = False
    causal: bool = False
    flat: bool = False
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)


# fmt: off
_QWEN2, _QWEN3 = (llama_like.FAMILIES[name] for name in ("qwen2", "qwen3"))
_QWEN2_VL = replace(
    _QWEN2,
    defaults={**_QWEN2.defaults, "vocab_size": 152_064, "hidden_size": 8192,
              "intermediate_size": 29_568, "num_hidden_layers": 80, "num_attention_heads": 64,
              "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "max_window_layers": 80},
    extra=("head_dim", "tie_word_embeddings"), theta=1_000_000.0,
    rotary_aliases={"mrope": "default"},
)
_WINDOWS = ("use_sliding_window", "sliding_window", "max_window_layers", "layer_types")
_QWEN3_VL = replace(
    _QWEN3,
    defaults={key: value for key, value in _QWEN3.defaults.items()
              if key not in _WINDOWS} | {"max_position_embeddings": 128_000},
    extra=("tie_word_embeddings",), ignored=("layer_types",),
    layer_types=lambda _: None, theta=500_000.0,
)

# Model type that only occurs as a text part -> (family by its tensors, table of its keys).
TEXTS: Mapping[str, tuple[str, Family]] = {
    "qwen2_vl_text":   ("qwen2", _QWEN2_VL),
    "qwen2_5_vl_text": ("qwen2", _QWEN2_VL),
    "qwen3_vl_text":   ("qwen3", _QWEN3_VL),
}

WRAPPERS: Mapping[str, Wrapper] = {
    "aya_vision":      Wrapper("cohere2", tied=True),
    # Its masks ignore that key: eager attention is causal, PyTorch's kernel not always.
    "gemma3":          Wrapper("gemma3_text", always=True, tied=True,
                               only={"use_bidirectional_attention": (None, False)}),
    "idefics3":        Wrapper("llama"),
    "internvl":        Wrapper("qwen2", tied=True),
    "llava":           Wrapper("llama", either=True),
    "llava_next":      Wrapper("llama", causal=True),
    "llava_onevision": Wrapper("qwen2", either=True, causal=True),
    "mistral3":        Wrapper("mistral", tied=True, causal=True),
    "qwen2_vl":        Wrapper("qwen2_vl_text", always=True, either=True, flat=True),
    "qwen2_5_vl":      Wrapper("qwen2_5_vl_text", always=True, either=True, flat=True),
    "qwen3_vl":        Wrapper("qwen3_vl_text", always=True),
    "smolvlm":         Wrapper("llama", causal=True),
    "vipllava":        Wrapper("llama"),
}
# fmt: on
