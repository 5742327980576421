"""HuggingFace language models: safetensors to our parameters, with no PyTorch.

from converters.huggingface import load_pretrained_lm

config, params = load_pretrained_lm("Qwen/Qwen3-0.6B", dtype="bfloat16")
"""

from typing import TYPE_CHECKING, Any

from converters.huggingface.convert import convert_pretrained
from converters.huggingface.export.folder import ExportOptions, export_pretrained
from converters.huggingface.files.folder import Pretrained, open_pretrained
from converters.huggingface.planner import plan_pretrained

if TYPE_CHECKING:
    from converters.huggingface.load import load_pretrained_lm

__all__ = [
    "ExportOptions",
    "Pretrained",
    "convert_pretrained",
    "export_pretrained",
    "load_pretrained_lm",
    "open_pretrained",
    "plan_pretrained",
]


def __getattr__(name: str) -> Any:
    """`load_pretrained_lm` comes with JAX, which a conversion does not need in memory."""
    if name == "load_pretrained_lm":
        from converters.huggingface.load import load_pretrained_lm

        return load_pretrained_lm
    raise AttributeError(f"module 'converters.huggingface' has no attribute '{name}'")
