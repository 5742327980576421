"""The tensors of each HuggingFace family, in one table per family: parameter, tensor, operation.

Letters in operations stand for sizes: D model width, N heads, J key and value heads, H head width,
F hidden width, X experts, FX hidden width of an expert; for latent attention, Z width of the part
of a key without rotary positions, O width of a value. Kernels keep their layout: a `Linear` holds
[out, in], GPT-2's `Conv1D` [in, out], and `Family.kernel_axes` says which. Norm scales stay as
stored.

Read `tensors` first, for what a table contains, then the tables `llama_like`, `layer_norm`,
`parallel`, `gpt`, `mixtures`, `alibi` and `large`; `parts` has the rules that they share.
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
