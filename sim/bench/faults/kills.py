"""Verbs that are killed at random moments, or stand still and are killed: nothing that they acknowledged is lost."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from vlamem.core.bench import BenchError
from vlamem.core.seeding import stream
from vlamem.deploy.bench.processes import ServerProcess
from vlamem.deploy.robot import EventLog, Link, LinkOptions
from vlamem.memory.success import SuccessMemory, open_store
from vlamem.memory.success.store import export
from vlamem.sim.bench.deployment.crash import LAYOUT, ORIGIN, SEGMENTS, crash_episode
from vlamem.sim.bench.faults.killed import LONG_S, Killed, kill_after, stand_still, whole_lines

_EPISODES = 120


def verb_words(*words: object) -> list[str]:
    """A command of vlamem for this interpreter."""
    return [sys.executable, "-m", "vlamem", *map(str, words)]


def completed(words: Sequence[str]) -> bool:
    """Whether the verb ends well when nobody kills it."""
    done = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=LONG_S)
    return done.returncode == 0


def _filled(path: Path, episodes: int) -> None:
    with SuccessMemory(path, ORIGIN, LAYOUT) as memory:
        for number in range(episodes):
            memory.commit(crash_episode(number))


def _counted(path: Path) -> tuple[int, int, bool]:
    """Whole episodes, segments, and whether every one is as it was written."""
    with SuccessMemory(path, ORIGIN, LAYOUT) as memory:
        memory.verify()
        of = Counter(segment.episode for segment in memory.store.segments(memory.origin))
        return len(of), sum(of.values()), all(n == SEGMENTS for n in of.values())


def kill_imports(folder: Path, kills: int, seed: int) -> Killed:
    """`vlamem memory import`, into one file that it is killed over again and again."""
    folder.mkdir(parents=True, exist_ok=True)
    snapshot, target, rng = folder / "theirs.safetensors", folder / "mine.db", stream(seed, "kill imports")
    _filled(folder / "theirs.db", _EPISODES)
    with SuccessMemory(folder / "theirs.db", ORIGIN, LAYOUT) as theirs:
        export(theirs.store, theirs.origin, snapshot)
    words, there, survived, lost, stops = verb_words("memory", "import", target, snapshot), 0, 0, 0, 0
    for number in range(kills):
        if there == _EPISODES:
            target.unlink()
            there = 0
        stops += kill_after(words, float(rng.uniform(0, 0.6)), _still(number, rng), target.exists)
        if not _has_origin(target):
            survived += 1
            continue
        found, _, whole = _counted(target)
        survived, lost = survived + whole, lost + max(0, there - found)
        there = found
    done = completed(words) and _counted(target)[0] == _EPISODES
    return Killed("memory import", kills, survived if done else 0, there, lost, stops)


def _has_origin(path: Path) -> bool:
    if not path.exists():
        return False
    store = open_store(path)
    try:
        return bool(store.origins())
    finally:
        store.close()


def kill_prunes(folder: Path, kills: int, seed: int) -> Killed:
    """`vlamem memory prune`: as many segments as before, or as many as were asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    target, rng, most = folder / "mine.db", stream(seed, "kill prunes"), SEGMENTS * _EPISODES // 2
    words, survived, stops = verb_words("memory", "prune", target, "--most", most), 0, 0
    for number in range(kills):
        target.unlink(missing_ok=True)
        _filled(target, _EPISODES)
        stops += kill_after(words, float(rng.uniform(0, 1.5)), _still(number, rng))
        survived += _counted(target)[1] in (SEGMENTS * _EPISODES, most)
    return Killed("memory prune", kills, survived, 0, 0, stops)


def kill_recordings(verb: str, words: Sequence[str], out: Path, log: str, kills: int, seed: int) -> Killed:
    """`rollout` or `collect` into one folder: each line that was there at a kill is there, once, at the end.

    Raises BenchError when it records nothing at all.
    """
    run, rng = [*verb_words(verb, *words), "--out", str(out)], stream(seed, "kill", verb)

    def recorded() -> list[str]:
        return [line for path in sorted(out.rglob(log)) for line in whole_lines(path)]

    acknowledged, stops = set[str](), 0
    for number in range(kills):
        before = len(recorded())

        def more(before: int = before) -> bool:
            return len(recorded()) > before

        stops += kill_after(run, float(rng.uniform(0, 2.0)), _still(number, rng), more)
        acknowledged |= set(recorded())
    done, found = completed(run), Counter(recorded())
    if not found:
        raise BenchError(f"vlamem {verb} recorded nothing: {' '.join(run)}")
    lost = sum(line not in found for line in acknowledged)
    doubled = sum(n - 1 for n in found.values())
    return Killed(verb, kills, kills if done and not doubled and not lost else 0, len(acknowledged), lost, stops)


def _still(number: int, rng: np.random.Generator) -> float:
    """How long a verb stands still before kill `number`: every second one does."""
    return float(rng.uniform(0.05, 1.0)) if number % 2 else 0.0


def kill_servers(folder: Path, kills: int, seed: int, say: Callable[[str], None]) -> Killed:
    """`vlamem serve`, while a robot labels: each label that the robot was told is on disk is in the server's file."""
    server, rng = (
        ServerProcess(["--policy", "tiny", "--memory", "aura", "--threads", "1"], folder),
        stream(seed, "serve"),
    )
    link = None
    try:
        server.start()
        say(f"serve listens; {kills} kills")
        link = Link(LinkOptions(f"ws://127.0.0.1:{server.port}", "arm", folder / "robot"), EventLog())
        link.start(60)
        survived = stops = 0
        for number in range(kills):
            link.begin(number + 1)
            for _ in range(5):
                link.label(number + 1, "success")
            link.end(number + 1)
            if still := _still(number, rng):
                stand_still(server.serving, 3 * still)  # also longer than the robot waits for a reply
                stops += 1
            time.sleep(float(rng.uniform(0, 0.3)))
            server.crash()
            server.wait_listening()
            until = time.monotonic() + 60
            while not link.drained and time.monotonic() < until:
                time.sleep(0.01)
            survived += link.drained
        kept = {
            body["label"]["label"]
            for line in whole_lines(folder / "state" / "labels.jsonl")
            if "label" in (body := json.loads(line))
        }
        lost = sum(name not in kept for name in link.acknowledged)
        return Killed("serve", kills, survived, len(link.acknowledged), lost, stops)
    finally:
        if link is not None:
            link.close()
        server.kill()
