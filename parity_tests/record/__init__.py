"""Records what the original libraries write and compute: the real PAXml 1.4.0, and others.

It runs in environments of its own (Python 3.10 for PAXml, see docs/how-to/record-your-model.md) and
imports nothing of this project except its own modules: `python -m parity_tests.record`.
"""
