"""`python -m parity_tests.record OUT [NAME ...]`, see docs/recording.md."""

from parity_tests.record.checkpoints import main

main()
