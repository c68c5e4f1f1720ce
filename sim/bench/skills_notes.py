"""What the page docs/results/skills.md says of the shipped weights beside its figures."""

NOTES = """
"""
