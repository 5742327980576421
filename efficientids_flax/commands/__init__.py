"""What all commands share: how each is declared, the options that several have, the program.

Read `declare`, then `options`; `program` is the table of all commands. A command itself lies beside
what it calls: `train/commands/`, `inference/commands/`, and those of the other packages.
"""

from efficientids_flax.commands.declare import Command, combined, command, echo, is_quiet, verbosity

__all__ = ["Command", "combined", "command", "echo", "is_quiet", "verbosity"]
