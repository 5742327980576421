"""`python -m efficientids_flax.train` is `efficientids train`."""

from efficientids_flax.commands.program import run_module

if __name__ == "__main__":
    run_module("train", "efficientids_flax.train")
