"""`python -m efficientids_flax.inference`."""

from efficientids_flax.inference.commands.recommend import main

main(prog_name="python -m efficientids_flax.inference")
