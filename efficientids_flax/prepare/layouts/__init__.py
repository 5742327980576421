"""Layouts of data sets, and which of them a source has.

Read `movielens`, `amazon`, `recbole` and `named`, the tables; then `source`, which finds files;
`choose`, what is read from each; and `recognise`, which finds the layout.
"""

from efficientids_flax.prepare.layouts.choose import Choice
from efficientids_flax.prepare.layouts.recognise import LAYOUTS, NAMES, recognise
from efficientids_flax.prepare.layouts.source import Source, SourceError, Taken
