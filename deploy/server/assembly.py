"""A server made of files: policy, gate, success memory, sessions and labels."""

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from vlamem.core.proposal import Proposal
from vlamem.deploy.server.commit import commit_episode
from vlamem.deploy.server.labels import LabelDesk
from vlamem.deploy.server.persistence import Owner, SessionStore, layout_of
from vlamem.deploy.server.server import PolicyServer, ServeOptions
from vlamem.deploy.server.traces import Spool
from vlamem.memory.runner import AuraVoice, identity
from vlamem.memory.success import CriticVerifier, Layout, ProgressCritic
from vlamem.policies.fuse import SpeakOptions
from vlamem.policies.memory_policy import SHIPPED_GATE, MemoryPolicy
from vlamem.policies.registry import find_policy, load_policy, preload_policy
from vlamem.policies.success import SuccessVoice, open_success

log = logging.getLogger("vlamem.serve")


class _Counted:
    """A success memory whose answers are told to someone."""

    def __init__(self, voice: SuccessVoice) -> None:
        self._voice = voice
        self.tell: Callable[[Proposal], None] = lambda proposal: None

    def query(
        self, key: np.ndarray[Any, Any], proprioception: np.ndarray[Any, Any], instruction: Sequence[str]
    ) -> Proposal:
        proposal = self._voice.query(key, proprioception, instruction)
        self.tell(proposal)
        return proposal


def gate_path(aura: str) -> Path | None:
    """The weights file that an option names: "none", "shipped", or a path."""
    if aura == "none":
        return None
    return SHIPPED_GATE if aura == "shipped" else Path(aura)


def preload(policy: str) -> None:
    """Imports what a server of this policy will need, so that one can be forked (vlamem.deploy.server.respawn).

    Raises what `find_policy` and `preload_policy` raise.
    """
    # a fork wants no threads: a download leaves one that redraws its bar, pyarrow one of its allocator
    tqdm.monitor_interval = 0
    os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")
    preload_policy(find_policy(policy))


def load_memory_policy(
    policy: str, aura: str, success: Path | None, rows: int, speak: SpeakOptions
) -> tuple[MemoryPolicy, SuccessVoice | None, Owner]:
    """A policy with memory of `rows` rows, its success memory, and whom stored sessions belong to.

    Raises PolicyError, WeightsError or OriginError for files that are missing, broken or made for another policy.
    """
    source = find_policy(policy)
    frozen = load_policy(source)
    gate = gate_path(aura)
    voice = None if gate is None else AuraVoice.load(gate, identity(frozen.spec, source.sha256))
    stored = None if success is None else open_success(success, frozen, source.sha256)
    wrapped = MemoryPolicy(frozen, voice, None if stored is None else _Counted(stored), rows, speak)
    marks = identity(frozen.spec, source.sha256)
    memory = "none" if gate is None else hashlib.sha256(gate.read_bytes()).hexdigest()[:16]
    owner = Owner(marks.policy, marks.fingerprint, marks.normaliser, memory, layout_of(wrapped.state(0)))
    return wrapped, stored, owner


def _critic(path: Path, layout: Layout) -> ProgressCritic:
    critic = ProgressCritic.load(path)
    one = np.zeros((1, layout.key_size)), np.zeros((1, layout.proprioception_size))
    critic.progress(*one)  # raises now, and not at the first episode, when it is another policy's
    return critic


def build_server(
    policy: str,
    aura: str,
    success: Path | None,
    state: Path | None,
    options: ServeOptions,
    speak: SpeakOptions | None = None,
    critic: Path | None = None,
) -> tuple[PolicyServer, LabelDesk | None]:
    """A server of a policy with memory, and its labels' desk, to be closed after it.

    Sessions and labels are kept in `state`, or nowhere; a labelled episode is committed to `success`, and one that
    nobody labelled before the next began when the progress `critic` of a file is sure of its outcome. Raises what
    `load_memory_policy` raises, EntryError for a file that is no critic or one for another policy, and ValueError for a
    success memory without a folder for labels, or a critic without a success memory.
    """
    if success is not None and state is None:
        raise ValueError("a success memory grows by labels, which need a folder: give --state")
    if critic is not None and success is None:
        raise ValueError("a critic judges what a success memory is to keep: give --success")
    wrapped, stored, owner = load_memory_policy(policy, aura, success, options.sessions.count, speak or SpeakOptions())
    store = desk = spool = None
    if state is not None:
        store = sessions = SessionStore(state / "sessions", owner, wrapped.state(0))
        if stored is not None:
            bounds, memory, meaning = options.sessions, stored.memory, stored.meaning
            spool = traces = Spool(state / "episodes", bounds.bytes, bounds.bytes * bounds.count)
            verifier = None if critic is None else CriticVerifier(_critic(critic, memory.layout))
            desk = LabelDesk(
                state / "labels.jsonl",
                lambda label: commit_episode(memory, traces, label, meaning, verifier),
                log.warning,
                runs=lambda label: sessions.runs(label.session, label.episode),
                judges=verifier is not None,
            )
        else:
            desk = LabelDesk(
                state / "labels.jsonl", lambda label: "kept: this server has no success memory", log.warning
            )
    about = {"policy": policy, "aura": owner.memory, "success": "none" if success is None else success.name}
    encode = wrapped.policy.encode if spool is not None else None
    server = PolicyServer(wrapped, options, store, desk, spool, about, encode)
    if isinstance(wrapped.success, _Counted):
        wrapped.success.tell = server.metrics.retrieved
    return server, desk
