"""HuggingFace language models: safetensors to our parameters, with no PyTorch, and back.

from converters.huggingface import load_pretrained_lm

config, params = load_pretrained_lm("Qwen/Qwen3-0.6B", dtype="bfloat16")

Read `tables` first, the tables of the families, then `names`, which finds the model among a file's
tensors, `quantized`, which dequantizes weights, `mapping`, which applies a table (with `pieces` and
`fused`), and `planner`. `convert` writes a checkpoint, `load` fills memory through `in_memory`,
`files` reads folders, and `export` writes them. `forecasters` does all of this for TimesFM.
"""

from typing import TYPE_CHECKING

from efficientids_flax.lazy_names import lazy_names

if TYPE_CHECKING:
    from converters.huggingface.convert import ConvertPretrainedOptions, convert_pretrained
    from converters.huggingface.export import ExportOptions, export_pretrained
    from converters.huggingface.files import Pretrained, open_pretrained
    from converters.huggingface.load import load_pretrained_lm
    from converters.huggingface.planner import PretrainedOptions, plan_pretrained

__all__ = [
    "ConvertPretrainedOptions",
    "ExportOptions",
    "Pretrained",
    "PretrainedOptions",
    "convert_pretrained",
    "export_pretrained",
    "load_pretrained_lm",
    "open_pretrained",
    "plan_pretrained",
]

__getattr__ = lazy_names(__name__)
