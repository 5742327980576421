"""The parameter tree of a configuration, as a table: the path and the axes of every leaf.

Conversions are checked against it before a value is read, and the modules create parameters of
these shapes. Shapes are PAXml's, or PyTorch's for kernels if `kernel_axes` is 'out_in'. Read
`tables`, all possible leaves, then `axes`, the leaves of one configuration, and `checks`.
"""

from efficientids_flax.parameters.axes import (
    BACKBONE,
    DECODER,
    FROZEN_LM,
    LORA_A,
    LORA_B,
    Axis,
    ModelConfig,
    parameter_axes,
    parameter_shapes,
)
from efficientids_flax.parameters.checks import (
    QUANTIZED,
    refuse_quantized,
    shape_problems,
)
from efficientids_flax.parameters.tables import (
    ATTENTION,
    CONDITIONS,
    MLP,
    MOE,
    NORMS,
    SHARED,
    TOP,
)
