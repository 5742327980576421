"""`python -m parity_tests.record OUT [NAME ...]`, or `... activations OUT`; docs/how-to/record-your-model.md."""

import sys

from parity_tests.record import activations, checkpoints

if sys.argv[1:2] == ["activations"]:
    activations.main(sys.argv[2:])
else:
    checkpoints.main()
