"""Lines for the reader of a run that has no display yet, or none any more."""

import logging
import sys
from contextlib import suppress

from efficientids_flax.train.logs.progress import Kind


def tell(kind: Kind, text: str, *, warns: bool = False) -> None:
    """A line on standard error; without a display only of what a reader must see, as a warning."""
    if kind == "none":
        if warns:
            logging.getLogger("efficientids_flax").warning(text)
    elif sys.stderr is not None:
        with suppress(OSError, ValueError):  # nobody reads it any more
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()
