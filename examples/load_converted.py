"""Loads the converted checkpoint named on the command line and shows what it holds."""

import sys

from jax.tree_util import keystr, tree_leaves_with_path

from converters import load_converted

params, optimizer_state, config = load_converted(sys.argv[1])

print(f"Family {config.family}, step {optimizer_state.step}")
print(f"Optimizer states: {', '.join(optimizer_state.optimizer) or 'none'}")
leaves = tree_leaves_with_path(params)
values = sum(leaf.size for _, leaf in leaves)
print(f"Parameters: {len(leaves)} leaves with {values:,} values; the first:")
for path, leaf in leaves[:6]:
    print(f"  {keystr(path, simple=True, separator='/')}: {leaf.dtype}{list(leaf.shape)}")
