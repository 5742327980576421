"""`python -m efficientids_flax.train --config ... --data_dir ...`."""

from efficientids_flax.train.cli import train_module

if __name__ == "__main__":
    train_module()
