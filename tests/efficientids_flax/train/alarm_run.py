"""One of two processes, the first of which fails while the other waits; for test_alarm.py.

alarm_run.py INDEX PORT
"""

import sys
import time

from efficientids_flax.train import alarm


def main(index: int, port: int) -> None:
    alarm.PERIOD, alarm.GRACE = 0.1, 0.5
    alarm.initialize(f"127.0.0.1:{port}", 2, index)
    if index == 0:
        raise FileNotFoundError("clustering.npz: no such file")
    time.sleep(200)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
