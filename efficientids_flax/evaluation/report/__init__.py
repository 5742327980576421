"""Writes an evaluation as JSON for programs, and as a page for people with the same content.

Read `files`, then `page` and its `drawings`.
"""

from efficientids_flax.evaluation.report.files import described, write_report

__all__ = ["described", "write_report"]
