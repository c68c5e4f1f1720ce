"""The report of runs: one HTML page that needs no network."""

from vlamem.sim.report.page import ReportOptions, write_report
from vlamem.sim.report.runs import ReportError

__all__ = ["ReportError", "ReportOptions", "write_report"]
