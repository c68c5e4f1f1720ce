"""The key that a server asks of its clients, from the file that both are given."""

from pathlib import Path


def read_key(path: Path | None) -> str | None:
    """The first line of a key file; None without a file. Raises ValueError when it is empty, OSError when missing."""
    if path is None:
        return None
    key = path.read_text(encoding="utf-8").strip().partition("\n")[0].strip()
    if not key:
        raise ValueError(f"{path} holds no key: write one into its first line")
    return key
