"""The files of a pretrained model: its folder, safetensors, and PyTorch's own format.

Read `folder` first, then `index`, for models in several files, and the formats `safetensors` and
`torch`. `pointer` detects files that were never fetched, `values` compares tensors.
"""

from converters.huggingface.files.folder import Pretrained, open_pretrained
from converters.huggingface.files.index import indexed_tensors
from converters.huggingface.files.safetensors import read_safetensors
from converters.huggingface.files.values import equal_values
