"""Reads run folders for a report, as far as they go: unfinished, of an older version, without traces or videos."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlamem.core.json_files import read_json_map
from vlamem.core.running_trace import read_running, running_path
from vlamem.core.tick_trace import TickTrace, TraceError, read_trace, trace_path
from vlamem.sim.report.served import is_served, read_served
from vlamem.sim.results.episodes import EpisodeLog, EpisodeRecord, video_path


class ReportError(ValueError):
    """A folder that no report can be made of; the message names it and says why."""


@dataclass(frozen=True)
class Run:
    """A run folder.

    Attributes:
        label: what the report calls it, different from the other runs'.
        folder: where it is.
        records: its episodes so far, in the order in which they ended.
        configuration, fingerprint: of its run.json or results.json; empty where it has neither.
        notes: what is missing or broken, a sentence each.
    """

    label: str
    folder: Path
    records: list[EpisodeRecord]
    configuration: dict[str, Any]
    fingerprint: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    @property
    def tasks(self) -> list[str]:
        """Tasks that were played, in the order in which they come first."""
        return list(dict.fromkeys(record.task for record in self.records))

    def has_video(self, record: EpisodeRecord) -> bool:
        """Whether an episode was filmed."""
        return video_path(self.folder, record.task, record.episode).is_file()

    def has_trace(self, record: EpisodeRecord) -> bool:
        """Whether an episode has a trace."""
        path = trace_path(self.folder, record.task, record.episode)
        return path.is_file() or running_path(path).is_file()

    def trace(self, record: EpisodeRecord) -> TickTrace | None:
        """The trace of an episode; None, with a note where it is broken, when it cannot be read."""
        path = trace_path(self.folder, record.task, record.episode)
        try:
            return read_trace(path) if path.is_file() else read_running(path)
        except FileNotFoundError:
            return None
        except TraceError as error:
            self.notes.append(str(error))
            return None


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs in folders: those of rollouts, and states of servers.

    Raises ReportError for a folder without episodes, RecordError for a line that is none.
    """
    twice = [folder for i, folder in enumerate(folders) if folder.resolve() in [f.resolve() for f in folders[:i]]]
    if twice:
        raise ReportError(f"{twice[0]} is given twice: name each run once")
    return [_read(folder, label) for folder, label in zip(folders, _labels(folders), strict=True)]


def find_episode(run: Run, task: str | None, episode: int | None) -> EpisodeRecord:
    """An episode of a run; without a number its first failure, or its first where none failed.

    Raises ReportError for what there is not, naming what there is.
    """
    tasks = run.tasks
    if task is not None and task not in tasks:
        raise ReportError(f"{run.folder} has no task '{task}': choose one of {', '.join(tasks)}")
    if task is None and len(tasks) > 1 and episode is not None:
        raise ReportError(f"{run.folder} has {len(tasks)} tasks: give --task, one of {', '.join(tasks)}")
    of_task = [record for record in run.records if task in (None, record.task)]
    if episode is None:
        failed = [record for record in of_task if record.outcome == "failure"]
        return (failed or of_task)[0]
    found = [record for record in of_task if record.episode == episode]
    if not found:
        numbers = sorted(record.episode for record in of_task)
        raise ReportError(f"{run.folder} has no episode {episode}: it has {numbers[0]} to {numbers[-1]}")
    return found[0]


def _read(folder: Path, label: str) -> Run:
    log = folder / "episodes.jsonl"
    if is_served(folder):
        served, found = read_served(folder)
        if not served:
            raise ReportError(f"{folder} has no traced episode yet: 'vlamem serve --state' writes one when it begins")
        return Run(label, folder, served, {}, {"served": True}, [f"{label}: {note}" for note in found])
    if not log.is_file():
        raise ReportError(
            f"{folder} is no run: it has no episodes.jsonl; expected the --out of a 'vlamem rollout', or the --state "
            "of a 'vlamem serve'"
        )
    records = EpisodeLog(log).read()
    if not records:
        raise ReportError(f"{folder} has no episode yet: the same rollout command goes on")
    notes: list[str] = []
    body: dict[str, Any] = {}
    for name in ("run.json", "results.json"):  # what the second says is later
        try:
            body |= read_json_map(folder / name)
        except FileNotFoundError:
            missing = "it is unfinished or still being written" if name == "results.json" else "it is of another tool"
            notes.append(f"{label} has no {name}: {missing}; its {len(records)} episodes are shown.")
        except ValueError as error:
            notes.append(f"{label}: {name} is not JSON ({error}).")
    run = Run(label, folder, records, body.get("configuration", {}), body.get("fingerprint", {}), notes)
    if not any(run.has_trace(record) for record in records):
        notes.append(f"{label} has no traces: timelines and parts of the latency are missing.")
    if not any(run.has_video(record) for record in records):
        notes.append(f"{label} has no videos: 'vlamem rollout --video 2' films the first two episodes of each task.")
    return run


def _labels(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that differ."""
    parts = [folder.resolve().parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        labels = ["/".join(each[-length:]) for each in parts]
        if len(set(labels)) == len(labels):
            return labels
    raise ReportError(f"{folders[0]} is given twice: name each run once")
