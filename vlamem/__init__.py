"""Memory for frozen vision-language-action policies."""

__version__ = "0.1.0"

__all__ = ["__version__"]
