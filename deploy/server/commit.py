"""Commits labelled episodes to success memory."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from vlamem.deploy.bounds import longest_gap
from vlamem.deploy.server.executed import PlannedActions
from vlamem.deploy.server.labels import Label
from vlamem.deploy.server.traces import TraceStore
from vlamem.memory.success.experience.layout import EntryError, Layout
from vlamem.memory.success.experience.trace import Trace
from vlamem.memory.success.lifecycle.recorder import EpisodeRecorder, verified_episode
from vlamem.memory.success.lifecycle.verify import OperatorVerifier, Verifier
from vlamem.memory.success.memory import SuccessMemory

Array = np.ndarray[Any, Any]


def commit_episode(
    memory: SuccessMemory,
    traces: TraceStore,
    label: Label,
    meaning: Callable[[str], Array] | None = None,
    verifier: Verifier | None = None,
    most_missing: int = longest_gap(20.0),
) -> str:
    """Commits a labelled episode to success memory; returns one line with the result.

    An episode that nobody labelled is judged by `verifier`. A label that corrects an earlier one retracts what that has
    stored, as long as the trace is there. The outcome is credited to the segments that the episode used, once: a
    correction changes what is stored, and not that. With a residual prior the episode is kept as a trial, once, under
    its last label. `meaning` embeds an instruction; nothing is kept of an episode in which more than `most_missing`
    steps have no action on record. Raises LabelError for a damaged trace.
    """
    if traces.is_truncated(label.session, label.episode):
        traces.remove(label.session, label.episode)
        return f"nothing of {label.session}/{label.episode} could be kept: it was longer than its share of the disk"
    if label.outcome == "unlabelled" and traces.is_labelled(label.session, label.episode):
        return f"{label.session}/{label.episode} was labelled"
    try:
        trace = _trace_of(traces.read(label.session, label.episode), memory.layout, most_missing, meaning)
    except _NotKept as why:
        return f"nothing of {label.session}/{label.episode} could be kept: {why}"
    if label.outcome == "unlabelled" and verifier is not None:
        verdict = verifier.verify(trace)
    else:
        succeeded = {"success": True, "failure": False}.get(label.outcome)
        verdict = OperatorVerifier(name=label.source).verify(trace, succeeded)
    episode = verified_episode(trace, verdict, memory.layout, label.made)
    if episode is None:
        result = f"nothing of {label.session}/{label.episode} could be kept: {len(trace.actions)} actions are known"
    else:
        try:
            committed = memory.commit(episode)
        except EntryError as error:  # the same at every try: its trace is not kept for another
            traces.mark_labelled(label.session, label.episode)
            return f"nothing of {label.session}/{label.episode} could be kept: {error}"
        result = f"{len(committed.ids)} segments kept, {committed.merged} merged"
        result += f", {committed.retracted} of an earlier label retracted" if committed.retracted else ""
    trial = memory.trial_of(trace, verdict, label.made)
    if trial is not None:
        memory.add_trial(trial)
        result += ", noted as a trial"
    if verdict.success is None:
        return result  # no one knows yet: a label that comes later is credited, and finds the trace
    credited = traces.is_labelled(label.session, label.episode)
    traces.mark_labelled(label.session, label.episode)
    if not credited:  # after the mark: a crash in between loses it, and none counts twice
        memory.credit(trace.used, verdict.success)
    return result


class _NotKept(Exception):  # noqa: N818  # nothing is wrong: the episode is not one to keep
    """An episode of which nothing may be stored; the message says why."""


def _trace_of(
    entries: Iterable[dict[str, Any]], layout: Layout, most_missing: int, meaning: Callable[[str], Array] | None
) -> Trace:
    """The episode that a trace recorded, from the last plan before its first action.

    A step without an action repeats the next. Raises _NotKept where more than `most_missing` have none, and for an
    action that does not come from what was planned.
    """
    recorder = EpisodeRecorder(layout)
    low = np.concatenate([np.full(part.size, part.low) for part in layout.parts])
    high = np.concatenate([np.full(part.size, part.high) for part in layout.parts])
    planned = PlannedActions(low, high)
    identity: str | None = None
    first, count, missing = -1, 0, 0
    for entry in entries:
        if "identity" in entry:
            identity = entry["identity"]
        elif "action" in entry:
            gap = entry["step"] - 1 - first - count
            if first < 0 or gap < 0:  # before the first plan, or a step that came twice
                continue
            missing += gap
            if missing > most_missing:
                raise _NotKept(
                    f"{missing} of its steps have no action on record, at most {most_missing} may be missing"
                )
            if not planned.allows(entry["step"], entry["action"]):
                raise _NotKept(f"the action before step {entry['step']} was neither planned nor on the way to rest")
            for _ in range(gap + 1):
                recorder.act(entry["action"])
            count += gap + 1
        else:
            if count == 0:
                text, first = entry["instruction"], entry["step"]
                recorder.begin(text, identity, None if meaning is None else meaning(text))
            planned.planned(entry["step"], entry["chunk"])
            more = entry.get("used"), entry.get("offset")
            recorder.observe(entry["key"], entry["proprioception"], entry["chunk"], *more)
    if identity is None and first >= 0:
        raise _NotKept("its record has no beginning")
    return recorder.trace()
