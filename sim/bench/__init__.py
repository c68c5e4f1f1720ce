"""Benches: each measures one thing and writes its results page."""
