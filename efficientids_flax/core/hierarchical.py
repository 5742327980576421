"""Where users were promised `HierarchicalSoftmax`; it lives in `core.head`."""

from efficientids_flax.core.head.softmax import HierarchicalSoftmax

__all__ = ["HierarchicalSoftmax"]
