"""Compares our models with recordings of the originals: every value, in the order of computation.

Read `converted`, which compares one checkpoint with one recording, then `recording`, the recorded
values, and `check`. `readers` open recordings, `names` translates their names, `run` computes our
values, `compare` compares, `steps` follows the optimizer, `hints` looks for causes, `report` writes
reports. `finding` searches settings by a recording, `found` reports the result of a search.
`forecasters` does all this for models of time series. `commands` are the commands of the shell.
`cases` finds the bundled recordings, on which the suites here run; `record` makes them with the
real PAXml. `moved` lists modules that have moved.
"""

from efficientids_flax.moved import add_moved
from parity_tests.moved import MODULES, RENAMED

add_moved(__name__, MODULES, RENAMED)
