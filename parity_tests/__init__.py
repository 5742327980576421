"""Compares our models with recordings of the originals: every value, in the order of computation.

Read `converted` first, which compares one checkpoint with one recording, then `recording`, the
recorded values, and `check`. `readers` open recordings, `names` translates their names, `run`
computes our values, `compare` compares them, `steps` follows the optimizer, `hints` looks for
causes of differences, `report` writes reports. `finding` searches for settings that agree with a
recording, `found` reports the result of a search. `forecasters` does all this for TimesFM.
`commands` holds the shell commands. `cases` finds the bundled recordings, on which the test suites
here run; `record` makes them with the real PAXml. `moved` lists modules that have moved.
"""

from efficientids_flax.moved import add_moved
from parity_tests.moved import MODULES, RENAMED

add_moved(__name__, MODULES, RENAMED)
