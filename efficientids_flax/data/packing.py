"""First-fit bin packing."""

from collections.abc import Sequence

import numpy as np


def first_fit(sizes: Sequence[int], length: int) -> np.ndarray:
    """int32 [N], the bin of each size, in order: the first bin that has room for it.

    Args:
        sizes: each at most `length`.
        length: capacity of a bin.
    """
    # A binary tree over the bins; each node knows the most room in any bin below it. There are at
    # most as many bins as sizes.
    leaves = 1 << max(len(sizes) - 1, 0).bit_length()
    room = [length] * (2 * leaves)
    found = np.empty(len(sizes), np.int32)
    for number, size in enumerate(sizes):
        node = 1
        while node < leaves:
            node *= 2
            if room[node] < size:
                node += 1
        found[number] = node - leaves
        room[node] -= size
        while node > 1:
            node //= 2
            best = max(room[2 * node], room[2 * node + 1])
            if room[node] == best:
                break
            room[node] = best
    return found
