"""The bench's page and figures."""

import statistics
import textwrap
from typing import Any

from vlamem.deploy.bench.controller_kills import LIMIT_S
from vlamem.deploy.bench.run import DeployBench, Result

Figures = dict[str, tuple[float, int | None]]
"""Value and n by name."""


def figures(result: Result) -> Figures:
    """Every figure of the page; those that could not be measured are left out."""
    quiet, faults = result.quiet, result.faults
    runs = (quiet, faults, result.revived)
    commands = sum(r["audit"]["commands"] for r in runs)
    stale = sum(r["audit"]["stale"] + (r["received_elsewhere"] or 0) for r in runs)
    labels = sum(len(r["acknowledged"]) for r in runs)
    survived = result.malformed if result.alive else 0
    found: Figures = {
        "jitter_p50_ms": (quiet["jitter_ms"]["p50"], quiet["rounds"]),
        "jitter_p99_ms": (quiet["jitter_ms"]["p99"], quiet["rounds"]),
        "jitter_max_ms": (quiet["jitter_ms"]["max"], quiet["rounds"]),
        "deadline_misses": (quiet["deadline_misses"], quiet["rounds"]),
        "out_of_limit_commands": (sum(r["audit"]["out_of_limit"] for r in runs), commands),
        "stale_commands": (stale, commands),
        "labels_lost": (result.labels_lost, labels),
        "session_leaks": (result.leaks["different"], result.leaks["sessions"]),
        "malformed_survived": (survived, result.malformed),
        "kills_survived": (result.survived, result.kills),
        "memory_growth_mb": (result.growth_mb, len(result.memory_mb)),
        "server_cpu_percent": (result.cpu_percent, None),
        "server_memory_mb": (max(result.memory_mb), None),
        "faults_jitter_p99_ms": (faults["jitter_ms"]["p99"], faults["rounds"]),
        "faults_deadline_misses": (faults["deadline_misses"], faults["rounds"]),
        "deaf_client_ended": (float(result.deaf_ended), 1),
    }
    for name in ("p50", "p99"):
        if quiet["decision_ms"]:
            found[f"decision_{name}_ms"] = (quiet["decision_ms"][name], quiet["decisions"])
    if result.resume_s:
        found["resume_max_s"] = (max(result.resume_s), len(result.resume_s))
    if result.controller_kills:
        n = len(result.controller_kills)
        found["controller_kills_survived"] = (sum(k.survived for k in result.controller_kills), n)
        found["controller_memories_kept"] = (sum(k.kept for k in result.controller_kills), n)
        resumed = sorted(k.resume_s for k in result.controller_kills if k.resume_s is not None)
        if resumed:
            found["controller_resume_p50_s"] = (statistics.median(resumed), len(resumed))
            found["controller_resume_max_s"] = (resumed[-1], len(resumed))
    if quiet["seams"]:
        found["seam_jump_ratio"] = (quiet["seams"]["ratio"], quiet["seams"]["n"])
        found["seam_acceleration_ratio"] = (quiet["seams"]["acceleration_ratio"], quiet["seams"]["n"])
        found["seam_jerk_ratio"] = (quiet["seams"]["jerk_ratio"], quiet["seams"]["n"])
    return found


def markdown(bench: DeployBench, result: Result) -> str:
    """The page's own text."""
    quiet, faults, leaks = result.quiet, result.faults, result.leaks
    mean = sum(result.stalls_s) / len(result.stalls_s) if result.stalls_s else 0.0
    changed = ", ".join(f"{n} were {what}" for what, n in sorted(result.network.items())) or "none were changed"
    parts = [
        "# A server and a robot, as two processes over loopback",
        f"`vlamem serve` with policy `{bench.policy}` and gate `{bench.aura}`, and a controller at the rate of robot "
        f"file `{bench.robot_file}` with a MuJoCo arm in real time (suite `{bench.suite}`, tasks "
        f"{', '.join(bench.tasks)}). The arm's simulation and its rendering are a process of their own on the same "
        "machine. Frames go to memory at the policy's rate, commands to the arm at the robot's.",
        f"- **Quiet**: {bench.quiet_s:g} s, {quiet['episodes']} episodes, {quiet['rounds']} rounds of the loop; "
        f"{_modes(quiet)}. Loop scheduling: {quiet['scheduling']['reason']}.",
        f"- **Faults**: {faults['episodes']} episodes, {faults['rounds']} rounds; {_modes(faults)}. The server was "
        f"killed {result.kills} times (kill -9), the network stalled {len(result.stalls_s)} times ({mean:.2f} s on "
        f"average), and of the robot's messages {changed}.",
        f"- **Killed controllers**: the controller was killed {len(result.controller_kills)} times (kill -9) in the "
        f"middle of an episode (tasks {', '.join(bench.memory_tasks)}) whose memory was written, and the next one "
        "started; server and arm went on.",
        f"- **Abuse**: {result.malformed} malformed messages ({result.answered} answered, {result.ended} connections "
        f"ended instead), {bench.clients} clients at once ({leaks['sessions']} found a place, {leaks['refused']} were "
        f"refused), one client that never reads ({'disconnected' if result.deaf_ended else 'still there'}).",
        "What is counted: a command is *out of limit* when a separate audit of all that was sent finds it outside the "
        "robot's file (range, speed, step, box, not finite); *stale* when it comes from another episode's chunk, from "
        "an observation older than `stale_s`, moves where nothing was planned, or when the arm received it in another "
        "episode than it was sent in (the last is not looked for after kills of controllers, whose own notes end with "
        "them). A *session leaks* when the gate's figures of a client among many differ from "
        f"the same frames alone by more than rounding (largest difference {leaks['largest']:.1e}). A *kill is "
        "survived* when the robot's session is restored in the same episode; a *controller's* when the next one finds "
        "session, episode and the memory that the server has on disk for it, and commands from a fresh chunk within "
        f"{LIMIT_S:g} s of its start (*resume*); its *memory is kept* also where that takes longer. *Labels lost* are "
        "those acknowledged to the robot and not in the server's file. *Jitter* is how late a round of the loop "
        "begins.",
        f"Clips: quiet {_counts(quiet['clips'])}; faults {_counts(faults['clips'])}. Events under faults: "
        f"{_counts(faults['events'])}.",
    ]
    if quiet["seams"]:
        s = quiet["seams"]
        parts.append(
            f"Where a chunk gives way to the next ({s['n']} times, blended over {bench.blend} steps), the command "
            f"changes by {s['jumps']:.3f} at p95, within a chunk by {s['steps']:.3f} per policy step."
        )
    return "\n\n".join(textwrap.fill(p, 118, subsequent_indent="  " if p.startswith("- ") else "") for p in parts)


def _modes(report: dict[str, Any]) -> str:
    total = max(1, sum(report["modes"].values()))
    return ", ".join(f"{100 * n / total:.1f} % {mode}" for mode, n in report["modes"].items() if n)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(counts.items())) or "none"
