"""Messages to the user before a run's display opens, or after it has closed."""

import logging
import sys
from contextlib import suppress

from efficientids_flax.train.logs.progress import Kind


def tell(kind: Kind, text: str, *, warns: bool = False) -> None:
    """Print a line to standard error; with display 'none' only warnings, through `logging`."""
    if kind == "none":
        if warns:
            logging.getLogger("efficientids_flax").warning(text)
    elif sys.stderr is not None:
        with suppress(OSError, ValueError):  # the terminal or pipe is closed
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()
