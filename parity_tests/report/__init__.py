"""Reports the result of a comparison, for people and for programs.

Read `table` first, for the terminal and JUnit XML, then `html`, which writes one HTML file.
"""

from parity_tests.report.html import write_html
from parity_tests.report.table import WIDTH, Report, print_report, report_json, write_junit
