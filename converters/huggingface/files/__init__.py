"""The files of a pretrained model: its folder, safetensors, PyTorch's own.

Read `folder`, then the formats, `safetensors` and `torch`.
"""

from converters.huggingface.files.folder import Pretrained, indexed_tensors, open_pretrained
from converters.huggingface.files.safetensors import read_safetensors
