"""Records checkpoints that the real PAXml 1.4.0 writes, for the tests of the converter.

Runs in an environment of its own (Python 3.10, docs/recording.md) and imports nothing of this
project but its own modules: `python -m parity_tests.record OUT`.
"""
