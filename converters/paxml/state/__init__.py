"""PAXml's optimizer states and their conversion to optax's.

Read `slots` first, for the parts of a state, then `moments`, which finds the variable of each, then
`optimizer`, which makes the states of an `optax.named_chain` and removes the bias correction from
Adam's moments.
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
