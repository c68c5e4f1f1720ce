"""Markdown pages from jinja2 templates; an undefined name is an error, never an empty cell."""

import textwrap
from collections.abc import Iterable
from functools import cache
from typing import Any

WIDTH = 118
"""Columns of a filled paragraph."""


def number(value: float, spec: str) -> str:
    """A number in a format of Python's, e.g. `{{ x | number("+.1f") }}`."""
    return format(value, spec)


def row(cells: Iterable[object]) -> str:
    """A row of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def head(columns: Iterable[object]) -> str:
    """The head of a table and the line under it."""
    names = list(columns)
    return f"{row(names)}\n{row(['---'] * len(names))}"


def filled(text: str) -> str:
    """Paragraphs broken at WIDTH, those of a list indented from their second line on."""
    paragraphs = [" ".join(p.split()) for p in text.split("\n\n")]
    return "\n\n".join(
        textwrap.fill(p, WIDTH, subsequent_indent="  " if p.startswith("- ") else "") for p in paragraphs if p
    )


@cache
def _environment(package: str) -> Any:
    import jinja2

    found = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package, "."), jinja2.PackageLoader("vlamem.core", ".")]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701  # Markdown is not HTML
    )
    found.filters |= {"number": number, "row": row, "head": head, "filled": filled}
    return found


def render(package: str, template: str, **data: Any) -> str:
    """The text of a template in the folder of `package`, without blank lines at its end.

    Templates take the macros of `macros.md.j2`, beside this file, and the filters number, row, head and filled. Raises
    jinja2.UndefinedError for a name that `data` lacks, jinja2.TemplateNotFound where there is no such template.
    """
    text: str = _environment(package).get_template(template).render(**data)
    return text.rstrip()
