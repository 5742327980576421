"""Layouts of data sets: as tables, and which one a source has.

Read `movielens`, `amazon`, `recbole` and `named`, the tables; then `source`, the files, `choose`,
what is taken from each, and `recognise`, which layout they have.
"""

from efficientids_flax.prepare.layouts.choose import Choice
from efficientids_flax.prepare.layouts.recognise import LAYOUTS, NAMES, recognise
from efficientids_flax.prepare.layouts.source import Source, SourceError, Taken
