"""The report of a run as one HTML page: what each iteration did to each problem.

`write_report.py` writes it. `page/` has the template, the style and the scripts.
"""
