"""Options behind a question mark: "FILE?name=value&other=value", in which a plus sign is a plus sign, as in a path."""

from collections.abc import Iterable
from urllib.parse import parse_qsl, quote, urlencode


def parse_query(query: str) -> list[tuple[str, str]]:
    """The options in their order; %20 and the like stand for the characters that would part them."""
    return parse_qsl(query.replace("+", "%2B"), keep_blank_values=True)


def write_query(options: Iterable[tuple[str, str]]) -> str:
    """What `parse_query` reads."""
    return urlencode(list(options), safe="/:", quote_via=quote)
