"""Commits labelled episodes to success memory."""

from collections.abc import Callable
from typing import Any

import numpy as np

from vlamem.deploy.server.labels import Label
from vlamem.deploy.server.traces import TraceStore
from vlamem.memory.success.lifecycle.recorder import EpisodeRecorder
from vlamem.memory.success.lifecycle.verify import OperatorVerifier, Verifier
from vlamem.memory.success.memory import SuccessMemory

Array = np.ndarray[Any, Any]


def commit_episode(
    memory: SuccessMemory,
    traces: TraceStore,
    label: Label,
    meaning: Callable[[str], Array] | None = None,
    verifier: Verifier | None = None,
) -> str:
    """Commits a labelled episode to success memory; returns one line with the result.

    An episode that nobody labelled is judged by `verifier`. A label that corrects an earlier one retracts what that has
    stored, as long as the trace is there. `meaning` embeds an instruction. Raises LabelError for a damaged trace.
    """
    if traces.is_truncated(label.session, label.episode):
        traces.remove(label.session, label.episode)
        return f"nothing of {label.session}/{label.episode} could be kept: it was longer than its share of the disk"
    if label.outcome == "unlabelled" and traces.is_labelled(label.session, label.episode):
        return f"{label.session}/{label.episode} was labelled"
    recorder = EpisodeRecorder(memory.layout)
    identity: str | None = None
    begun = False
    steps = 0
    for entry in traces.read(label.session, label.episode):
        if "identity" in entry:
            identity = entry["identity"]
            continue
        if "action" in entry:
            while begun and steps < entry["step"] - 1:  # a step without an action repeats the last
                recorder.act(entry["action"])
                steps += 1
            if begun:
                recorder.act(entry["action"])
                steps += 1
            continue
        if not begun:
            text = entry["instruction"]
            recorder.begin(text, identity, None if meaning is None else meaning(text))
            begun = True
        recorder.observe(entry["key"], entry["proprioception"], entry["chunk"])
    if identity is None and begun:
        return f"nothing of {label.session}/{label.episode} could be kept: its record has no beginning"
    trace = recorder.trace()
    if label.outcome == "unlabelled" and verifier is not None:
        verdict = verifier.verify(trace)
    else:
        succeeded = {"success": True, "failure": False}.get(label.outcome)
        verdict = OperatorVerifier(name=label.source).verify(trace, succeeded)
    episode = recorder.finish(verdict, label.made, trace)
    if episode is None:
        result = f"nothing of {label.session}/{label.episode} could be kept: {len(trace.actions)} actions are known"
    else:
        committed = memory.commit(episode)
        result = f"{len(committed.ids)} segments kept, {committed.merged} merged"
        result += f", {committed.retracted} of an earlier label retracted" if committed.retracted else ""
    traces.mark_labelled(label.session, label.episode)
    return result
