"""Shows an episode in Rerun: cameras, the hand's path, what was proposed and executed, and memory's figures over time.

Rerun is what LeRobot's tools use too; it scrubs all of them along one time line, opens .rrd files, and shows a run that
goes on.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rerun as rr
import rerun.blueprint as rrb

from vlamem.core.running_trace import SUFFIX
from vlamem.core.tick_trace import TickTrace, strip_path
from vlamem.sim.report.explain import explain_episode
from vlamem.sim.report.runs import ReportError, Run, read_runs
from vlamem.sim.results.episodes import EpisodeRecord, video_path

_FIGURES = ("gate", "surprise", "confidence", "chunk_weight", "context_weight", "similarity", "spread")
_COLOURS = {"gate": (138, 146, 156), "surprise": (200, 140, 40), "confidence": (42, 111, 219)}
_RED = (211, 53, 43)
_BLUE = (42, 111, 219)
_GREEN = (60, 160, 90)
_GREY = (138, 146, 156)


class EpisodeStream:
    """Sends the trace of an episode to Rerun, also piece by piece while it goes on."""

    def __init__(self, stream: rr.RecordingStream, trace: TickTrace) -> None:
        self._stream, self._hz = stream, float(trace.about.get("control_hz") or 20.0)
        self._sent = 0
        self._mode: str | None = None
        stream.send_blueprint(blueprint(trace))
        for name in trace.memories:
            for figure, colour in _COLOURS.items():
                style = rr.SeriesLines(colors=[colour], names=[figure])
                stream.log(f"memory/{name}/{figure}", style, static=True)

    def update(self, trace: TickTrace) -> None:
        """Sends the steps that were not sent yet."""
        rows, first = trace.rows[self._sent :], self._sent
        if not rows:
            return
        self._sent = len(trace.rows)
        for name in trace.memories:
            for figure in _FIGURES:
                self._scalars(f"memory/{name}/{figure}", rows, f"{name}.{figure}")
        for column in trace.columns:
            if column.endswith("_ms"):
                self._scalars(f"latency/{column.removesuffix('_ms')}", rows, column)
        names = entries_of(trace)
        commands = [(row["step"], row["command"]) for row in rows if row.get("command")]
        for i, name in enumerate(names):
            self._columns(f"commands/{name}", [step for step, _ in commands], [values[i] for _, values in commands])
        self._hand(trace, first)
        for step, text, level in _events(trace, first, self._mode):
            self._at(step)
            self._stream.log("events", rr.TextLog(text, level=level))
        self._mode = next((row["mode"] for row in reversed(trace.rows) if row.get("mode")), self._mode)

    def cameras(self, run: Run, record: EpisodeRecord) -> None:
        """Sends the video of an episode, or its film strip where it was not filmed."""
        film, strip = (of(run.folder, record.task, record.episode) for of in (video_path, strip_path))
        if film.is_file():
            asset = rr.AssetVideo(path=film)
            self._stream.log("cameras", asset, static=True)
            stamps = asset.read_frame_timestamps_nanos()
            steps = np.arange(len(stamps))
            columns = rr.VideoFrameReference.columns_nanos(stamps)
            self._stream.send_columns("cameras", self._times(steps), columns)
        elif strip.is_file():
            self._stream.log("cameras", rr.EncodedImage(path=strip), static=True)

    def explain(self, record: EpisodeRecord, trace: TickTrace) -> None:
        """Sends what `vlamem explain` says of an episode that is over."""
        text = [f"# {record.task} {record.episode}: {record.outcome}", f"*{record.instruction}*", ""]
        text += [f"- {line}" for line in explain_episode(trace)]
        document = rr.TextDocument("\n".join(text), media_type=rr.MediaType.MARKDOWN)
        self._stream.log("explained", document, static=True)

    def _hand(self, trace: TickTrace, first: int) -> None:
        """The hand's path, and from each plan on where the commands and the proposed chunks would take it."""
        if trace.about.get("state") != "pose":
            return
        seen = [(row["step"], row["proprioception"][:3]) for row in trace.rows if row.get("proprioception")]
        if not seen:
            return
        path = np.asarray([place for _, place in seen], np.float32)
        self._stream.log("space/hand/path", rr.LineStrips3D([path], colors=[_GREY]), static=True)
        places = dict(seen)
        moves = _translation(trace)
        planned = [row["step"] for row in trace.rows if row.get("planned")]
        for row in trace.rows[first:]:
            step = row["step"]
            if step in places:
                self._at(step)
                self._stream.log("space/hand", rr.Points3D([places[step]], radii=[0.008], colors=[_RED]))
            if not row.get("planned") or step not in places or moves is None:
                continue
            until = next((later for later in planned if later > step), trace.rows[-1]["step"] + 1)
            rows = [each for each in trace.rows if step <= each["step"] < until]
            executed = [each["command"] for each in rows if each.get("command")]
            self._path("space/plans/executed", step, places[step], executed, moves, _GREEN)
            for name in trace.memories:
                chunk = row.get(f"{name}.chunk")
                size = len(entries_of(trace))
                steps = [] if not chunk else np.asarray(chunk).reshape(-1, size).tolist()
                self._path(f"space/plans/{name}", step, places[step], steps, moves, _BLUE)

    def _path(
        self, entity: str, step: int, start: list[float], commands: list[list[float]], moves: Any, colour: Any
    ) -> None:
        self._at(step)
        if not commands:
            self._stream.log(entity, rr.Clear(recursive=False))
            return
        at, metres = moves
        offsets = np.cumsum(np.asarray(commands, np.float32)[:, at] * metres, axis=0)
        points = np.concatenate([[start], np.asarray(start, np.float32) + offsets])
        self._stream.log(entity, rr.LineStrips3D([points], colors=[colour]))

    def _scalars(self, entity: str, rows: list[dict[str, Any]], column: str) -> None:
        found = [(row["step"], row[column]) for row in rows if row.get(column) is not None]
        self._columns(entity, [step for step, _ in found], [value for _, value in found])

    def _columns(self, entity: str, steps: list[int], values: list[float]) -> None:
        if steps:
            self._stream.send_columns(entity, self._times(np.asarray(steps)), rr.Scalars.columns(scalars=values))

    def _times(self, steps: np.ndarray) -> list[rr.TimeColumn]:
        return [rr.TimeColumn("step", sequence=steps), rr.TimeColumn("time", duration=steps / self._hz)]

    def _at(self, step: int) -> None:
        self._stream.set_time("step", sequence=step)
        self._stream.set_time("time", duration=step / self._hz)


def blueprint(trace: TickTrace) -> rrb.Blueprint:
    """How the viewer is laid out for an episode."""
    left: list[Any] = [rrb.Spatial2DView(origin="cameras", name="cameras")]
    if trace.about.get("state") == "pose":
        left.append(rrb.Spatial3DView(origin="space", name="hand and plans"))
    series = [rrb.TimeSeriesView(origin=f"memory/{name}", name=name) for name in trace.memories]
    series.append(rrb.TimeSeriesView(origin="commands", name="commands"))
    words = rrb.Tabs(
        rrb.TextDocumentView(origin="explained", name="explained"),
        rrb.TextLogView(origin="events", name="events"),
        rrb.TimeSeriesView(origin="latency", name="latency [ms]"),
    )
    return rrb.Blueprint(rrb.Horizontal(rrb.Vertical(*left), rrb.Vertical(*series), words), collapse_panels=True)


def entries_of(trace: TickTrace) -> list[str]:
    """A name for each entry of a command."""
    found = [
        f"{part['name']}.{i}" if part["size"] > 1 else part["name"]
        for part in trace.about.get("actions", ())
        for i in range(part["size"])
    ]
    size = next((len(command) for command in trace.column("command") if command), 0)
    return found if len(found) == size else [f"entry.{i}" for i in range(size)]


def write_recording(run: Run, record: EpisodeRecord, out: Path) -> None:
    """Writes an episode as a .rrd file. Raises ReportError for one without a trace, OSError."""
    trace = _trace(run, record)
    stream = recording(run, record)
    out.parent.mkdir(parents=True, exist_ok=True)
    stream.save(out)
    _send(stream, run, record, trace)
    stream.flush()
    stream.disconnect()


def recording(run: Run, record: EpisodeRecord) -> rr.RecordingStream:
    """A recording of its own for an episode."""
    name = f"{run.label} {record.task} {record.episode}"
    known = f"{run.folder.resolve()}/{record.task}/{record.episode}"  # a file is passed on: it names no place on disk
    stream = rr.RecordingStream("vlamem", recording_id=hashlib.sha256(known.encode()).hexdigest()[:32])
    stream.send_recording_name(name)
    return stream


def follow(
    folder: Path, opened: Callable[[rr.RecordingStream], None], every_s: float = 1.0, stopped: Callable[[], bool] = bool
) -> Iterator[str]:
    """Sends every episode that ends from now on, and each that a server serves while it goes on; gives their names.

    `opened` connects a new recording with a viewer; `stopped` is asked after each look at the folder. Raises
    ReportError for a folder that is no run.
    """
    streams: dict[tuple[str, int], EpisodeStream] = {}
    done = {(record.task, record.episode) for record in _runs(folder).records} if _has_runs(folder) else set()
    while True:
        run = _runs(folder) if _has_runs(folder) else None
        for record in run.records if run else ():
            key = record.task, record.episode
            if run is None or key in done:
                continue
            trace = run.trace(record)
            if trace is None or not trace.rows:
                continue
            if key not in streams:
                stream = recording(run, record)
                opened(stream)
                streams[key] = EpisodeStream(stream, trace)
                yield f"{record.task} {record.episode}"
            streams[key].update(trace)
            running = folder / "traces" / f"{record.task}-{record.episode:04d}{SUFFIX}"
            if not running.is_file():
                streams[key].cameras(run, record)
                streams[key].explain(record, trace)
                done.add(key)
                del streams[key]
        if stopped():
            return
        time.sleep(every_s)


def _has_runs(folder: Path) -> bool:
    """Whether an episode is there: a run may have been begun and have none yet."""
    log = folder / "episodes.jsonl"
    return (log.is_file() and log.stat().st_size > 0) or any((folder / "traces").glob("*"))


def _runs(folder: Path) -> Run:
    return read_runs([folder])[0]


def _trace(run: Run, record: EpisodeRecord) -> TickTrace:
    trace = run.trace(record)
    if trace is None or not trace.rows:
        raise ReportError(f"{record.task} {record.episode} of {run.folder} has no trace: there is nothing to view")
    return trace


def _send(stream: rr.RecordingStream, run: Run, record: EpisodeRecord, trace: TickTrace) -> None:
    shown = EpisodeStream(stream, trace)
    shown.cameras(run, record)
    shown.update(trace)
    shown.explain(record, trace)


def _translation(trace: TickTrace) -> tuple[slice, float] | None:
    """Where the translation stands in a command, and its unit [m]; None where commands are no displacements."""
    at = 0
    for part in trace.about.get("actions", ()):
        if part["form"] == "xyz" and part["mode"] == "delta":
            number, _, unit = part["unit"].partition(" ")
            return (slice(at, at + 3), float(number)) if unit == "m" else None
        at += part["size"]
    return None


def _events(trace: TickTrace, first: int, mode: str | None) -> Iterator[tuple[int, str, str]]:
    """Step, words and level of what is worth a line in the log."""
    for row in trace.rows[first:]:
        for name in trace.memories:
            if row.get(f"{name}.wrote"):
                yield row["step"], f"{name} was written: gate {row[f'{name}.gate']:.2f}", "INFO"
            if row.get(f"{name}.abstained"):
                yield row["step"], f"{name} abstained: {row[f'{name}.abstained']}", "DEBUG"
        if row.get("clipped") or row.get("limits"):
            yield row["step"], f"clipped by {row.get('clipped') or 0:.2g} {row.get('limits') or ''}".rstrip(), "WARN"
        if row.get("mode") and row["mode"] != mode:
            mode = row["mode"]
            yield row["step"], f"robot: {mode}", "INFO" if mode == "run" else "WARN"
