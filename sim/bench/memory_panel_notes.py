"""What the memory panel's page says beside its figures: what was tried, and what is left."""

NOTES = """
"""
