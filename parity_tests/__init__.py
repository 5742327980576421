"""Our models against what the originals computed: every value, in the order of the data flow.

Read `converted`, one checkpoint against one recording, then `recording`, what was recorded, and
`check`; `readers` open recordings, `names` translates their names, `run` computes ours, `compare`
measures, `steps` follows the optimizer, `hints` looks for causes, `report` tells; `finding`
searches settings by what was recorded, `found` says what came of a search; `forecasters` does all
of it for models of time series; `commands` is the shell's. `cases` finds the bundled recordings, on
which the suites here run; `record` makes them beside the real PAXml. `moved` has the modules
that have another place than they had.
"""

from efficientids_flax.moved import add_moved
from parity_tests.moved import MODULES, RENAMED

add_moved(__name__, MODULES, RENAMED)
