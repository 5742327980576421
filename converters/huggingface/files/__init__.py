"""The files of a pretrained model: its folder, safetensors, PyTorch's own.

Read `folder`, then `index`, of files that are several, and the formats, `safetensors` and `torch`;
`pointer` tells what was never fetched, `values` compares tensors.
"""

from converters.huggingface.files.folder import Pretrained, open_pretrained
from converters.huggingface.files.index import indexed_tensors
from converters.huggingface.files.safetensors import read_safetensors
from converters.huggingface.files.values import equal_values
