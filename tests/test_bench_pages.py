"""vlamem/core/pages.py, and the pages of two benches against golden ones: none can change unnoticed."""

import json
from pathlib import Path
from typing import Any

import jinja2
import pytest

from vlamem.core.pages import filled, head, number, render, row
from vlamem.sim.bench.rate import Rate
from vlamem.sim.bench.skills.report import figures_of, text_of
from vlamem.sim.bench.synthetic.report import page_of
from vlamem.sim.suites.registry import load_suite
from vlamem.sim.suites.tabletop.leak import ProbeResult

GOLDEN = Path(__file__).parent / "golden"


def golden(name: str) -> tuple[dict[str, Any], str]:
    """What a page is made of, and the page."""
    return json.loads((GOLDEN / f"{name}.json").read_text()), (GOLDEN / f"{name}.md").read_text()


def assert_figures(found: Any, expected: dict[str, list[Any]]) -> None:
    assert list(found) == list(expected)
    for name, (value, n, ci95) in expected.items():
        assert found[name].value == pytest.approx(value), name
        assert found[name].n == n, name
        assert found[name].ci95 == (ci95 if ci95 is None else pytest.approx(tuple(ci95))), name


def test_the_synthetic_page_is_the_golden_one() -> None:
    data, text = golden("bench_synthetic")
    page = page_of(data["found"], Path(), [Path("synthetic_gate_over_time.png")], notes=False)
    assert page.text + "\n" == text
    assert_figures(page.figures, data["figures"])


def test_the_skills_page_is_the_golden_one() -> None:
    data, text = golden("bench_skills")
    tasks = load_suite("tabletop").tasks
    rates = {arm: {t: Rate(*counts) for t, counts in of.items()} for arm, of in data["rates"].items()}
    probes = {t: {name: ProbeResult(*p) for name, p in looks.items()} for t, looks in data["probes"].items()}
    assert text_of(rates, tasks, probes, data["header"], notes=False) + "\n" == text
    assert_figures(figures_of(rates, tasks, probes), data["figures"])


def test_notes_stand_under_the_tables_of_the_run_that_they_speak_of() -> None:
    data, text = golden("bench_synthetic")
    noted = page_of(data["found"], Path(), [Path("synthetic_gate_over_time.png")], notes=True).text
    assert noted.startswith(text + "\n## What was tried\n\n")


def test_a_name_that_a_template_lacks_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError, match="rates"):
        render("vlamem.sim.bench.skills", "page.md.j2", tasks={})
    with pytest.raises(jinja2.TemplateNotFound, match=r"nothing\.md"):
        render("vlamem.sim.bench.skills", "nothing.md")


def test_a_rate_has_its_interval_and_none_is_made_of_nothing() -> None:
    rate = Rate.of([True] * 9 + [False])
    assert (rate.successes, rate.n, rate.percent) == (9, 10, 90.0)
    assert rate.low == pytest.approx(59.58, abs=0.01)
    assert rate.high == pytest.approx(98.21, abs=0.01)
    with pytest.raises(ZeroDivisionError):
        _ = Rate.of([]).percent


def test_tables_numbers_and_paragraphs_are_markdown() -> None:
    assert head(["a", "b"]) == "| a | b |\n| --- | --- |"
    assert row([1, "x", ""]) == "| 1 | x |  |"
    assert number(1234.56, ",.1f") == "1,234.6"
    text = filled("# Title\n\n" + "word " * 40 + "\nend\n\n- item " + "word " * 30 + "\n")
    title, paragraph, item = text.split("\n\n")
    assert title == "# Title"
    assert max(map(len, text.splitlines())) <= 118
    assert paragraph.endswith("word end")
    assert item.splitlines()[1].startswith("  word")
