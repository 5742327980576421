"""Public path of `HierarchicalSoftmax`, which is defined in `core.head`."""

from efficientids_flax.core.head.softmax import HierarchicalSoftmax
from efficientids_flax.moved import left_names

__all__ = ["HierarchicalSoftmax"]

__getattr__ = left_names(__name__)
