"""What a label makes of an episode: segments of success memory."""

from collections.abc import Callable
from typing import Any

import numpy as np

from vlamem.deploy.server.labels import Label
from vlamem.deploy.server.traces import Spool
from vlamem.memory.success.lifecycle.recorder import EpisodeRecorder
from vlamem.memory.success.lifecycle.verify import OperatorVerifier, Verifier
from vlamem.memory.success.memory import SuccessMemory

Array = np.ndarray[Any, Any]


def commit_episode(
    memory: SuccessMemory,
    spool: Spool,
    label: Label,
    meaning: Callable[[str], Array] | None = None,
    verifier: Verifier | None = None,
) -> str:
    """Commits a labelled episode to success memory and says what came of it.

    Where nobody said what it was, `verifier` judges it. A label that corrects an earlier one takes back what that has
    stored, as long as the episode is spooled.
    """
    if spool.cut_short(label.session, label.episode):
        spool.forget(label.session, label.episode)
        return f"nothing of {label.session}/{label.episode} could be kept: it was longer than its share of the disk"
    if label.outcome == "unsaid" and spool.settled(label.session, label.episode):
        return f"{label.session}/{label.episode} was labelled"
    recorder = EpisodeRecorder(memory.layout)
    identity: str | None = None
    begun = False
    steps = 0
    for entry in spool.read(label.session, label.episode):
        if "identity" in entry:
            identity = entry["identity"]
            continue
        if "action" in entry:
            while begun and steps < entry["step"] - 1:  # a step without word of its action repeats the last
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
    if label.outcome == "unsaid" and verifier is not None:
        verdict = verifier.verify(trace)
    else:
        said_so = {"success": True, "failure": False}.get(label.outcome)
        verdict = OperatorVerifier(name=label.source).verify(trace, said_so)
    episode = recorder.finish(verdict, label.made, trace)
    if episode is None:
        said = f"nothing of {label.session}/{label.episode} could be kept: {len(trace.actions)} actions are known"
    else:
        committed = memory.commit(episode)
        said = f"{len(committed.ids)} segments kept, {committed.merged} merged"
        said += f", {committed.taken_back} of an earlier label taken back" if committed.taken_back else ""
    spool.settle(label.session, label.episode)
    return said
