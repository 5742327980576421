"""The tensors of each HuggingFace family, one table a family: our parameter, their name, operation.

Letters in operations stand for sizes: D model width, N heads, J heads of keys and values, H head
width, F hidden width, X experts, FX hidden width of an expert; of latent attention Z width of the
part of a key that is not turned, O width of a value. Kernels stay as they lie: a `Linear` holds
(out, in), GPT-2's `Conv1D` (in, out), and `Family.kernel_axes` says which. Norm scales stay as they
are stored.

Read `tensors`, what a table has, then the tables `llama_like`, `layer_norm`, `parallel`, `gpt`,
`mixtures`, `alibi` and `large`; `parts` is what they share.
"""

from collections.abc import Mapping

from converters.huggingface.tables import (
    alibi,
    gpt,
    large,
    layer_norm,
    llama_like,
    mixtures,
    parallel,
)
from converters.huggingface.tables.tensors import (
    HEAD_BIASES,
    HEADS,
    OUTSIDE,
    TO_IN_OUT,
    Cut,
    Fused,
    TensorTable,
)

TABLES: Mapping[str, TensorTable] = {
    **llama_like.TABLES,
    **layer_norm.TABLES,
    **parallel.TABLES,
    **gpt.TABLES,
    **mixtures.TABLES,
    **alibi.TABLES,
    **large.TABLES,
}
