"""Records what the original libraries write and compute: the real PAXml 1.4.0, and others.

Runs in environments of their own (Python 3.10 for PAXml, docs/how-to/record-your-model.md) and imports nothing of
this project but its own modules: `python -m parity_tests.record`.
"""
