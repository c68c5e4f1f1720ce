"""Presets: each YAML file fills one frozen dataclass."""
