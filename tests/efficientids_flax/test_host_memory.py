"""Kept memory is there without being asked of the system again."""

import subprocess
import sys

# Faults of touching 64 MB that was allocated and freed before, in pages of 4 kB.
AGAIN = """
import resource
from efficientids_flax.host_memory import keep_freed_memory
if {kept}:
    assert keep_freed_memory()
def touch():
    bytearray(64 << 20)
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    touch()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 4)
"""


def faults(kept: bool) -> int:
    command = [sys.executable, "-c", AGAIN.format(kept=kept)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_freed_memory_is_not_asked_for_again():
    # bytearray clears what it gets: mapped anew that is a fault a page, or one for many of them
    # where the system has huge pages; kept memory has none but the odd one of the interpreter.
    assert faults(kept=True) < 20 < faults(kept=False)
