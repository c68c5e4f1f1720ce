"""API keys of a server and its clients, from the files that they are given."""

from pathlib import Path

from vlamem.deploy.server.keys import ROLES, Role


def read_key(path: Path | None) -> str | None:
    """The key in the first line of a file, behind its role where one stands there; None without a file.

    Raises ValueError when it is empty or no text, OSError when it is missing.
    """
    return None if path is None else read_keys(path)[0][1]


def read_keys(path: Path | None) -> tuple[tuple[Role, str], ...]:
    """The keys in a file, one a line as `ROLE KEY`; the first line may be a key alone, an operator's.

    Raises ValueError when it is empty, no text, or a line is neither, OSError when it is missing.
    """
    if path is None:
        return ()
    try:
        lines = path.read_text(encoding="utf-8-sig").strip().splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 ({error.reason}): write the key anew") from error
    if not lines:
        raise ValueError(f"{path} holds no key: write one into its first line")
    found: list[tuple[Role, str]] = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if len(words) == 2 and words[0] in ROLES:
            found += [(role, words[1]) for role in ROLES if role == words[0]]
        elif number == 1:
            found.append(("operator", line.strip()))
            if not any(other.split()[:1] and other.split()[0] in ROLES for other in lines[1:]):
                break  # a file of version 0.1: its first line counts
        elif words:
            raise ValueError(f"{path}, line {number}: expected ROLE KEY, with a role of {', '.join(ROLES)}")
    return tuple(found)
