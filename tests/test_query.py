"""core/query.py: options behind a question mark come back as they were written."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vlamem.core.query import parse_query, write_query
from vlamem.memory.registry import MemoryName

NAMES = st.text(st.characters(codec="ascii", categories=["L"]), min_size=1)
VALUES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]))


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)  # how busy the machine is says nothing here
@given(st.lists(st.tuples(NAMES, VALUES)))
def test_options_come_back(options: list[tuple[str, str]]) -> None:
    assert parse_query(write_query(options)) == options


@pytest.mark.parametrize("path", ["/data/a+b/vlm", "/data/12:30/vlm", "/data/a=b", "/data/ümlaut"])
def test_a_path_is_read_as_it_is_typed(path: str) -> None:
    assert parse_query(f"backbone={path}&hz=20") == [("backbone", path), ("hz", "20")]


def test_a_memory_in_a_folder_with_a_colon_and_a_plus_is_found_there() -> None:
    name = MemoryName.parse("success:/data/12:30/a+b.db?commit=false")
    assert str(name.file) == "/data/12:30/a+b.db"
    assert MemoryName.parse(str(name)) == name
