"""Where things lie in the repository, for tests that read files."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests" / "data"
RECORDINGS = ROOT / "parity_tests" / "recordings"
