"""Carries out a plan: compute each leaf in tiles, write it, read it back, publish the output.

Read `work` first, the path that every conversion takes, then `execute`, `jobs`, `formats` and
`output`. `verify` makes and compares digests, `manifest` records what was done. `estimate`,
`processes`, `interrupts`, `journal` and `progress` support the work.
"""

from converters.write.estimate import estimated_size
from converters.write.execute import default_workers
from converters.write.processes import JaxProcesses, OneProcess, Processes
from converters.write.verify import MODES, as_bytes, contiguous_start
from converters.write.work import FORMATS, Report, WorkOptions, carry_out
