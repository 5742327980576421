"""`python -m efficientids_flax.inference` is `efficientids recommend`."""

from efficientids_flax.commands.program import run_module

run_module("recommend", "efficientids_flax.inference")
