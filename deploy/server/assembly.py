"""A server made of files: policy, gate, success memory, sessions and labels."""

import importlib.util
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vlamem.deploy.bounds import longest_gap
from vlamem.deploy.server.commit import commit_episode
from vlamem.deploy.server.labels import LabelQueue
from vlamem.deploy.server.options import ServeOptions
from vlamem.deploy.server.policy_server import PolicyServer
from vlamem.deploy.server.session_record import Owner, layout_of
from vlamem.deploy.server.session_store import SessionStore
from vlamem.deploy.server.tick_traces import TickTraces
from vlamem.deploy.server.traces import TraceStore
from vlamem.memory.success import CriticVerifier, Layout, ProgressCritic
from vlamem.memory.success.runner import SuccessRunner
from vlamem.memory.weights import identity
from vlamem.policies.memories import load_memories, parse_memories
from vlamem.policies.memory_policy import MemoryPolicy
from vlamem.policies.registry import find_policy, load_policy, preload_policy, weights_hash
from vlamem.policies.tick_recorder import TickColumns

log = logging.getLogger("vlamem.serve")


def preload(policy: str) -> None:
    """Imports what a server of this policy will need, so that one can be forked (vlamem.deploy.server.supervisor).

    Raises what `find_policy` and `preload_policy` raise.
    """
    # a fork wants no threads: a download leaves one that redraws its bar, pyarrow one of its allocator
    tqdm.monitor_interval = 0
    os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")
    preload_policy(find_policy(policy))


def load_memory_policy(
    policy: str, memory: Sequence[str], rows: int
) -> tuple[MemoryPolicy, SuccessRunner | None, Owner]:
    """A policy with memory of `rows` rows, its success memory, and whom stored sessions belong to.

    Raises PolicyError, MemoryNameError, WeightsError or OriginError for files that are missing, broken or made for
    another policy, ValueError for two success memories.
    """
    names = parse_memories(memory)
    source = find_policy(policy)
    frozen = load_policy(source)
    wrapped = MemoryPolicy(frozen, load_memories(names, frozen, source.sha256, rows), rows)
    stored = [m for m in wrapped.memories if isinstance(m, SuccessRunner)]
    if len(stored) > 1:
        raise ValueError(f"{len(stored)} success memories are given: a server commits to one, leave the others out")
    marks = identity(frozen.spec, weights_hash(frozen, source))
    weights = "+".join(name.sha256[:16] for name in names if name.sha256 is not None) or "none"
    owner = Owner(marks.policy, marks.fingerprint, marks.normaliser, weights, layout_of(wrapped.state(0)))
    return wrapped, stored[0] if stored else None, owner


def _critic(path: Path, layout: Layout) -> ProgressCritic:
    critic = ProgressCritic.load(path)
    one = np.zeros((1, layout.key_size)), np.zeros((1, layout.proprioception_size))
    critic.progress(*one)  # raises now, and not at the first episode, when it is another policy's
    return critic


def _tick_traces(policy: MemoryPolicy, state: Path, most_bytes: int, memory: Sequence[str], name: str) -> TickTraces:
    """Raises ModuleNotFoundError where traces cannot be written, before a robot is served."""
    for needed in ("pyarrow", "PIL"):
        if importlib.util.find_spec(needed) is None:
            raise ModuleNotFoundError(f"no module {needed}, which traces are written with", name=needed)
    action, arm = policy.spec.action, "+".join(m.label for m in parse_memories(memory)) or "none"
    low = np.concatenate([np.full(c.size, c.low, np.float32) for c in action.components])
    high = np.concatenate([np.full(c.size, c.high, np.float32) for c in action.components])
    columns = TickColumns(policy)
    about = {"arm": arm, "policy": name, "split": "served", "control_hz": policy.spec.control_hz}
    about |= {"state_bytes": policy.state_bytes} | columns.about
    return TickTraces(state, columns.types, about, low, high, most_bytes)


def build_server(
    policy: str,
    memory: Sequence[str],
    state: Path | None,
    options: ServeOptions,
    critic: Path | None = None,
    trace_bytes: int = 0,
) -> tuple[PolicyServer, LabelQueue | None]:
    """A server of a policy with memory, and its labels' queue, to be closed after it.

    Sessions and labels are kept in `state`, or nowhere; a labelled episode is committed to the success memory, and one
    that nobody labelled before the next began when the progress `critic` of a file is sure of its outcome. Traces of
    every control step take at most `trace_bytes` of `state`, which without them is 0. Raises what
    `load_memory_policy` raises, EntryError for a file that is no critic or one for another policy, and ValueError for a
    success memory without a folder for labels, a critic without a success memory, or several robots that would explore.
    """
    success = any(name.kind == "success" for name in parse_memories(memory))
    if success and state is None:
        raise ValueError("a success memory grows by labels, which need a folder: give --state")
    if critic is not None and not success:
        raise ValueError("a critic judges what a success memory is to keep: give --memory success:FILE")
    wrapped, stored, owner = load_memory_policy(policy, memory, options.sessions.count)
    if stored is not None and stored.explore_asked and options.sessions.count > 1:
        raise ValueError(
            f"?explore has one robot try out corrections, and {options.sessions.count} sessions may be open: give "
            "--sessions 1, or leave ?explore out"
        )
    store = queue = trace_store = None
    if state is not None:
        store = sessions = SessionStore(state / "sessions", owner, wrapped.state(0))
        if stored is not None:
            bounds, segments, meaning = options.sessions, stored.memory, stored.meaning
            trace_store = traces = TraceStore(state / "episodes", bounds.bytes, bounds.bytes * bounds.count)
            verifier = None if critic is None else CriticVerifier(_critic(critic, segments.layout))
            most_missing = longest_gap(wrapped.spec.control_hz)
            queue = LabelQueue(
                state / "labels.jsonl",
                lambda label: commit_episode(segments, traces, label, meaning, verifier, most_missing),
                log.warning,
                runs=lambda label: sessions.runs(label.session, label.episode),
                takes_unlabelled=verifier is not None,
            )
        else:
            queue = LabelQueue(
                state / "labels.jsonl", lambda label: "kept: this server has no success memory", log.warning
            )
    about = {
        "policy": policy,
        "aura": owner.memory,
        "success": "none" if stored is None else Path(stored.memory.store.name).name,
    }
    encode = wrapped.policy.encode if trace_store is not None else None
    used = None if stored is None else stored.used
    ticks = None if state is None or not trace_bytes else _tick_traces(wrapped, state, trace_bytes, memory, policy)

    def offset() -> np.ndarray | None:
        return None if stored is None else stored.offset

    server = PolicyServer(wrapped, options, store, queue, trace_store, about, encode, used, ticks, offset)
    if stored is not None:
        stored.learning = stored.explore_asked
        stored.proposed = server.metrics.retrieved
        followed = stored.memory
        server.follow = lambda: followed.refresh(wait=False)
    return server, queue
