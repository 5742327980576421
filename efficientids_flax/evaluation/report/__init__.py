"""The files of an evaluation: JSON for programs, and a page for people that is the same, drawn.

Read `files`, then `page` and its `drawings`.
"""

from efficientids_flax.evaluation.report.files import described, write_report

__all__ = ["described", "write_report"]
