"""From the folders that a sweep leaves to one page: read `summary.py` first."""
