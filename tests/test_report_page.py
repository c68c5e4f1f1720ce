"""The report in a headless Chromium: it draws, says nothing on the console, sorts, filters and fits."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_cases import Visit, chromium
from report_cases import write_run, write_served

from vlamem.sim.report import ReportOptions, write_report

WIDTHS = (390, 820, 1280)
DRAWN = "document.querySelectorAll('.episode').length === 4 && document.querySelectorAll('.episode svg').length >= 12"
OVERLAPS = """() => {
  // texts of a chart that lie over each other, and whatever is wider than the window
  const found = [];
  for (const svg of document.querySelectorAll("svg")) {
    const texts = [...svg.querySelectorAll("text")].filter((text) => text.textContent.trim());
    const boxes = texts.map((text) => text.getBoundingClientRect());
    boxes.forEach((a, i) => boxes.slice(i + 1).forEach((b, j) => {
      const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (across > 1 && down > 3) found.push(`${texts[i].textContent} / ${texts[i + 1 + j].textContent}`);
    }));
  }
  if (document.documentElement.scrollWidth > innerWidth) found.push("the page is wider than the window");
  return found;
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report of two runs, on disk."""
    root = tmp_path_factory.mktemp("report")
    runs = [write_run(root / "alone", "none", 6, 0.3), write_run(root / "aura", "aura", 6, 0.9)]
    write_report(runs, root / "report.html", ReportOptions(episodes=4))
    return Path(root / "report.html").as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One browser for all."""
    with chromium() as found:
        yield found


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_is_drawn_without_a_word_on_the_console_and_nothing_overlaps(
    browser: Any, address: str, width: int
) -> None:
    with Visit(browser, address, width, dark=width == 390) as visit:
        visit.draw_all(DRAWN)
        for chart in ("success-chart", "writes-chart", "differences-chart", "latency-chart"):
            marks = visit.page.evaluate(
                f"document.querySelectorAll('#{chart} svg :is(circle, line, rect, path)').length"
            )
            assert marks > 4, chart
        assert visit.page.evaluate(OVERLAPS) == []
        assert visit.said == []
        assert [url for url in visit.asked if not url.startswith(("file:", "data:", "blob:"))] == []


def test_a_table_sorts_and_filters_by_keyboard(browser: Any, address: str) -> None:
    with Visit(browser, address, 1280) as visit:
        page = visit.page
        steps = (
            "[...document.querySelectorAll('#all-table tbody tr')].map((row) => Number(row.children[5].textContent))"
        )
        button = page.locator("#all-table th button", has_text="steps")
        button.focus()
        page.keyboard.press("Enter")
        up = page.evaluate(steps)
        assert up == sorted(up)
        assert len(set(up)) > 3
        page.keyboard.press("Enter")
        assert page.evaluate(steps) == up[::-1]
        assert page.locator("#all-table th[aria-sort=descending]").inner_text().startswith("steps")
        page.locator("#all-table input[type=search]").fill("shell")
        assert page.locator("#all-table tbody tr").count() == 12
        page.locator("#all-table select").first.select_option("aura")
        assert page.locator("#all-table tbody tr").count() == 6
        assert "1 to 6 of 6" in page.locator("#all-table [role=status]").inner_text()


def test_slider_video_and_reading_move_together(browser: Any, address: str) -> None:
    with Visit(browser, address, 1280) as visit:
        visit.draw_all(DRAWN)
        page = visit.page
        episode = page.locator(".episode", has_text="aura, recall_colour 0")
        slider = episode.locator("input[type=range]")
        slider.focus()
        for _ in range(5):
            page.keyboard.press("ArrowRight")
        reading = episode.locator(".now").inner_text()
        assert reading.startswith("step 5 (0.25 s)")
        assert "wrote" in reading
        assert "abstained: unsure" in reading
        assert episode.locator("video").evaluate("(video) => video.currentTime") == pytest.approx(0.275)
        episode.locator("video").evaluate("(video) => video.play()")
        visit.wait("[...document.querySelectorAll('video')].some((video) => video.currentTime > 0.5)")
        visit.wait("[...document.querySelectorAll('.now')].some((now) => !/^step [05] /.test(now.textContent))")
        assert visit.said == []


def test_a_robots_episodes_are_drawn_on_a_phone_too(browser: Any, tmp_path: Path) -> None:
    write_report([write_served(tmp_path / "arms", 2)], tmp_path / "page.html", ReportOptions(episodes=4))
    with Visit(browser, (tmp_path / "page.html").as_uri(), 390) as visit:
        visit.draw_all(DRAWN)
        assert visit.page.evaluate(OVERLAPS) == []
        episode = visit.page.locator(".episode", has_text="arms, left-arm 1")
        assert "robot in wait, hold" in episode.inner_text()
        slider = episode.locator("input[type=range]")
        slider.fill("5")
        reading = episode.locator(".now").inner_text()
        assert "robot: run" in reading
        assert "changed by limits of speed, step" in reading
        assert visit.said == []
