"""Reports of a comparison: one HTML file for people to read, one table for the terminal."""

from nextclick.report.drawing import require_charts
from nextclick.report.page import write_html
from nextclick.report.statistics import Statistics, describe
from nextclick.report.table import print_report
from nextclick.report.two_stages import two_stages

__all__ = ["Statistics", "describe", "print_report", "require_charts", "two_stages", "write_html"]
