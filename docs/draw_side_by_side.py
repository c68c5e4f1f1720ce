"""Draws one episode of two runs side by side as a moving picture: the frozen policy alone, and with a memory.

docs/memory.gif is made by

    vlamem rollout --tasks recall_colour --memory none --episodes 2 --video 2 --out runs/alone
    vlamem rollout --tasks recall_colour --memory aura --episodes 2 --video 2 --out runs/aura
    python docs/draw_side_by_side.py runs/alone runs/aura --episode 1 --out docs/memory.gif
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vlamem.core.tick_trace import read_trace, trace_path
from vlamem.sim.report.film import frames_of
from vlamem.sim.results.episodes import EpisodeLog, EpisodeRecord, video_path

SIZE = 300
"""Height and width of a camera's image [pixels]."""
HEAD, FOOT, GAP = 34, 34, 10
EVERY = 2
"""Of so many frames one is drawn."""
STAY = 14
"""Frames for which the end is held."""
COLOURS = 96
GOOD, BAD, WROTE, INK, PAPER = (26, 127, 55), (190, 40, 40), (200, 90, 0), (30, 30, 30), (255, 255, 255)


def main() -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("alone", type=Path, help="run without a memory")
    parser.add_argument("memory", type=Path, help="run of the same episodes with one")
    parser.add_argument("--task", default="recall_colour")
    parser.add_argument("--episode", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    sides = [
        drawn(given.alone, given.task, given.episode, "frozen policy alone"),
        drawn(given.memory, given.task, given.episode, "the same policy with AURA-Mem"),
    ]
    length = max(map(len, sides)) + STAY
    pages = []
    for i in range(length):
        page = Image.new("RGB", (2 * SIZE + GAP, SIZE + HEAD + FOOT), PAPER)
        for column, side in enumerate(sides):
            page.paste(side[min(i, len(side) - 1)], (column * (SIZE + GAP), 0))
        pages.append(page.quantize(COLOURS, dither=Image.Dither.NONE))
    pages[0].save(given.out, save_all=True, append_images=pages[1:], duration=50 * EVERY, loop=0, optimize=True)
    print(f"{given.out}: {length} frames, {given.out.stat().st_size / 1e6:.2f} MB")


def drawn(run: Path, task: str, episode: int, title: str) -> list[Image.Image]:
    """Frames of an episode with a title, and below each what was written and how it ended."""
    (record,) = [r for r in EpisodeLog(run / "episodes.jsonl").read() if (r.task, r.episode) == (task, episode)]
    trace = read_trace(trace_path(run, task, episode))
    wrote = {step for name in trace.memories for step, w in enumerate(trace.column(f"{name}.wrote")) if w}
    frames = list(frames_of(video_path(run, task, episode)))
    chosen = [*range(0, len(frames) - 1, EVERY), len(frames) - 1]
    return [_page(frames[i], title, *_foot(record, i, len(frames), wrote)) for i in chosen]


def _foot(record: EpisodeRecord, step: int, steps: int, wrote: set[int]) -> tuple[str, tuple[int, int, int]]:
    if step == steps - 1:
        return (record.outcome, GOOD if record.outcome == "success" else BAD)
    recent = [each for each in wrote if step - 8 <= each <= step]
    return ("memory is written", WROTE) if recent else (f"step {step}", INK)


def _page(frame: np.ndarray, title: str, foot: str, colour: tuple[int, int, int]) -> Image.Image:
    height = frame.shape[0]  # the first of the square cameras that stand side by side
    image = Image.fromarray(frame[:, :height]).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    page = Image.new("RGB", (SIZE, SIZE + HEAD + FOOT), PAPER)
    page.paste(image, (0, HEAD))
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(18)
    pen.text((SIZE / 2, HEAD / 2), title, fill=INK, font=font, anchor="mm")
    pen.text((SIZE / 2, HEAD + SIZE + FOOT / 2), foot, fill=colour, font=font, anchor="mm")
    return page


if __name__ == "__main__":
    main()
