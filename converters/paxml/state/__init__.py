"""PAXml's optimizer states, and the way to optax's.

Read `slots`, what a state consists of, then `moments`, which variable each belongs to; `optimizer`
makes the states of an `optax.named_chain`, where Adam's moments lose their bias correction.
"""

from converters.paxml.state.moments import (
    MAY_BE_UNUSED,
    Shape,
    StateLeaf,
    expected_shapes,
    factorings,
    take_apart,
    unpadded_shape,
)
from converters.paxml.state.optimizer import ConvertedOptimizer, convert_optimizer, raw_optimizer
from converters.paxml.state.slots import optimizer_kinds
