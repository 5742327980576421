"""What all tests run with: XLA optimises nothing, and hypothesis repeats itself.

Most of the tests' time was XLA's; so it compiles six times faster. `make demo` compares with the
real PAXml as users compile. It is set in the environment, for the processes that tests start too,
and stands there before JAX is imported.

Hypothesis takes the same examples in each run and looks at no clock;
`--hypothesis-profile=default` looks for others.
"""

import os

from hypothesis import settings

FLAGS = ("--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1")

given = os.environ.get("XLA_FLAGS", "").split()
os.environ["XLA_FLAGS"] = " ".join([*given, *(flag for flag in FLAGS if flag not in given)])
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
