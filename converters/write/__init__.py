"""From a plan to files: compute each leaf in pieces, write, read back, publish.

Read `work`, the way that every conversion goes, then `execute`, `jobs`, `formats` and `output`;
`verify` digests, `manifest` says what was done, and `estimate`, `processes`, `interrupts`,
`journal` and `progress` are what surrounds the work.
"""

from converters.write.estimate import estimated_size
from converters.write.execute import default_workers
from converters.write.processes import JaxProcesses, OneProcess, Processes
from converters.write.verify import MODES, as_bytes, contiguous_start
from converters.write.work import FORMATS, Report, WorkOptions, carry_out
