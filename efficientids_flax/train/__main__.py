"""`python -m efficientids_flax.train --config ... --data_dir ...`."""

from efficientids_flax.train.commands.train import train_module

if __name__ == "__main__":
    train_module()
