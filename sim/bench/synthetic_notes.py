"""What the numbers of the full run mean, and what was tried on the way to them."""

NOTES = """\
## What was tried
"""
