"""Serving a policy with memory, and driving a robot with it."""
