"""The outcome of a comparison, for people and for programs.

Read `table`, the terminal and JUnit XML, then `html`, one file with everything.
"""

from parity_tests.report.html import write_html
from parity_tests.report.table import WIDTH, Report, print_report, report_json, write_junit
