"""What the notes of pages were written about."""

NOTED_GATE = "b352612bf7eadde6"
"""Digest of the gate's parameters that all notes are about; with another they would report what was not seen."""
