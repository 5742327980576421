"""Turns an open checkpoint and the user's options into a plan, before any value is read.

Read `leaves` first, for what a plan is, then `options`, for what the user can choose, then `make`.
`job` reads the job's files, `merge` takes parameters from other checkpoints, `quantized` turns
quantized weights into numbers with what `uses` knows about their axes, `publication` looks up the
table of published experiments, `model_config` makes the configuration and with `--strict` refuses
assumed settings, `additions` merges LoRA weights into the weights beside them.
"""

from converters.plan.leaves import Plan, PlannedLeaf, planned
from converters.plan.make import make_plan
from converters.plan.options import PlanOptions
