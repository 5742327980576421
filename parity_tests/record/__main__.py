"""`python -m parity_tests.record OUT [NAME ...]`, or `... activations OUT`, `... published OUT`.

See docs/how-to/record-your-model.md.
"""

import sys

from parity_tests.record import activations, checkpoints, published

if sys.argv[1:2] == ["activations"]:
    activations.main(sys.argv[2:])
elif sys.argv[1:2] == ["published"]:
    published.main(sys.argv[2:])
else:
    checkpoints.main()
