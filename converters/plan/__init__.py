"""From an open checkpoint and the user's wishes to a plan, before any value is read.

Read `leaves` for what a plan is, `options` for what may be asked for, then `make`; `job` reads the
job's files, `merge` takes parameters from several checkpoints, `quantized` makes numbers of
quantized weights, of which `uses` says how each lies, `publication` asks the table of published
experiments, `model_config` settles the configuration and refuses what it had to assume; `additions`
puts low-rank additions into weights.
"""

from converters.plan.leaves import Plan, PlannedLeaf, planned
from converters.plan.make import make_plan
from converters.plan.options import PlanOptions
