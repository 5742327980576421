"""The tensors of each HuggingFace family, one table a family: our parameter, their name, operation.

Letters in operations stand for sizes: D model width, N heads, J heads of keys and values, H head
width, F hidden width. Kernels stay as they lie: a `Linear` holds (out, in), GPT-2's `Conv1D` (in,
out), and `Family.kernel_axes` says which. Norm scales stay as they are stored.

Read `tensors`, what a table has, then the tables `llama_like` and `gpt`; `parts` is what they
share.
"""

from collections.abc import Mapping

from converters.huggingface.tables import gpt, llama_like
from converters.huggingface.tables.tensors import HEADS, OUTSIDE, TO_IN_OUT, TensorTable

TABLES: Mapping[str, TensorTable] = {
    **llama_like.TABLES,
    **gpt.TABLES,
}
