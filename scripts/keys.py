"""The API key of a server and its clients, from the file that both are given."""

from pathlib import Path


def read_key(path: Path | None) -> str | None:
    """The first line of a key file; None without a file.

    Raises ValueError when it is empty or no text, OSError when it is missing.
    """
    if path is None:
        return None
    try:
        key = path.read_text(encoding="utf-8-sig").strip().partition("\n")[0].strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 ({error.reason}): write the key anew") from error
    if not key:
        raise ValueError(f"{path} holds no key: write one into its first line")
    return key
