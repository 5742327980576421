"""What data costs: preparing interactions.

python -m benchmarks.data --prepare [--rows 20000000] [--rounds 3] [--mixed]

Ratios are of ways that take turns in one run, medians over the rounds.
"""

import argparse

from benchmarks.preparing import measure_preparing


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--prepare", action="store_true", help="interactions to Parquet")
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mixed", action="store_true", help="the users' rows in any order")
    given = parser.parse_args()
    if given.prepare:
        print(measure_preparing(given.rows, given.rounds, mixed=given.mixed))


if __name__ == "__main__":
    main()
