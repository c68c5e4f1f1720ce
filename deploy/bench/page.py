"""The bench's page and figures."""

import statistics
import textwrap
from typing import Any

from vlamem.deploy.bench import server_kills
from vlamem.deploy.bench.controller_kills import LIMIT_S
from vlamem.deploy.bench.options import DeployBench
from vlamem.deploy.bench.run import Result, growth

Figures = dict[str, tuple[float, int | None]]
"""Value and n by name."""


def figures(result: Result) -> Figures:
    """Every figure of the page; those that could not be measured are left out."""
    quiet, stressed = result.quiet.report, result.faults
    faults, leaks = stressed.report, stressed.leaks
    runs = (quiet, faults, result.revived)
    commands = sum(r["audit"]["commands"] for r in runs)
    stale = sum(r["audit"]["stale"] + (r["received_elsewhere"] or 0) for r in runs)
    labels = sum(len(r["acknowledged"]) for r in runs)
    found: Figures = {
        "jitter_p50_ms": (quiet["jitter_ms"]["p50"], quiet["rounds"]),
        "jitter_p99_ms": (quiet["jitter_ms"]["p99"], quiet["rounds"]),
        "jitter_max_ms": (quiet["jitter_ms"]["max"], quiet["rounds"]),
        "deadline_misses": (quiet["deadline_misses"], quiet["rounds"]),
        "out_of_limit_commands": (sum(r["audit"]["out_of_limit"] for r in runs), commands),
        "stale_commands": (stale, commands),
        "labels_lost": (result.labels_lost, labels),
        "session_leaks": (leaks.different, leaks.sessions),
        "malformed_survived": (stressed.malformed if result.alive else 0, stressed.malformed),
        **server_kills.figures(stressed.kills),
        "memory_growth_mb": (growth(result.quiet.memory_mb), len(result.quiet.memory_mb)),
        "server_cpu_percent": (result.quiet.cpu_percent, None),
        "server_memory_mb": (max(result.quiet.memory_mb), None),
        "faults_jitter_p99_ms": (faults["jitter_ms"]["p99"], faults["rounds"]),
        "faults_deadline_misses": (faults["deadline_misses"], faults["rounds"]),
        "deaf_client_ended": (float(stressed.deaf_ended), 1),
    }
    for name in ("p50", "p99"):
        if quiet["decision_ms"]:
            found[f"decision_{name}_ms"] = (quiet["decision_ms"][name], quiet["decisions"])
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
    quiet, stressed = result.quiet.report, result.faults
    faults, leaks = stressed.report, stressed.leaks
    mean = sum(stressed.stalls_s) / len(stressed.stalls_s) if stressed.stalls_s else 0.0
    changed = ", ".join(f"{n} were {what}" for what, n in sorted(stressed.network.items())) or "none were changed"
    parts = [
        "# A server and a robot, as two processes over loopback",
        f"`vlamem serve --respawn` with policy `{bench.policy}` and memory `{' '.join(bench.memory)}`, and a "
        "controller at the rate "
        f"of robot file `{bench.robot_file}` with a MuJoCo arm in real time (suite `{bench.suite}`, tasks "
        f"{', '.join(bench.tasks)}). The arm's simulation and its rendering are a process of their own on the same "
        "machine. Frames go to memory at the policy's rate, commands to the arm at the robot's.",
        f"- **Quiet**: {bench.quiet_s:g} s, {quiet['episodes']} episodes, {quiet['rounds']} rounds of the loop; "
        f"{_modes(quiet)}. Loop scheduling: {quiet['scheduling']['reason']}.",
        f"- **Faults**: {faults['episodes']} episodes (tasks {', '.join((*bench.memory_tasks, *bench.tasks))}), "
        f"{faults['rounds']} rounds; {_modes(faults)}. The server was killed {len(stressed.kills)} times (kill -9), "
        f"{sum(k.cold for k in stressed.kills)} times with the process that starts it again (`--respawn`), "
        f"the network stalled {len(stressed.stalls_s)} times ({mean:.2f} s on average), and of the robot's messages "
        f"{changed}.",
        f"- **Abuse**, while that robot went on: {stressed.malformed} malformed messages ({stressed.answered} "
        f"answered, {stressed.ended} connections ended instead), {bench.clients} clients at once ({leaks.sessions} "
        f"found a place, {leaks.refused} were refused), one client that never reads "
        f"({'disconnected' if stressed.deaf_ended else 'still there'}).",
        f"- **Killed controllers**: the controller was killed {len(result.controller_kills)} times (kill -9) in the "
        f"middle of an episode (tasks {', '.join(bench.memory_tasks)}) whose memory was written, and the next one "
        "started; server and arm went on.",
        "What is counted: a command is *out of limit* when a separate audit of all that was sent finds it outside the "
        "robot's file (range, speed, step, box, force, not finite); *stale* when it comes from another episode's "
        "chunk, from an observation older than `stale_s`, moves where nothing was planned, or when the arm received it "
        "in another episode than it was sent in (the last is not looked for after kills of controllers, whose own "
        "notes end with them). A *session leaks* when the gate's figures of a client among many differ from "
        f"the same frames alone by more than rounding (largest difference {leaks.largest:.1e}). A *kill of the server "
        "is survived* when the robot's session is restored, and in the same episode with the memory that lay on disk, "
        "or what became of it (*memories kept* counts those alone; in the others the robot had ended its episode "
        "before). It is *back* when the robot's session is restored, counted from the kill (*stalled*: the network was "
        f"stalled meanwhile; *in time*: within {LIMIT_S:g} s, stalls not counted), and after a *cold* kill, which "
        "takes the process along that would start the server again, from its new start (*loading*: to where it "
        "listens). A *kill of the controller is survived* when the next one finds session, episode and the memory that "
        f"the server has on disk for it, and commands from a fresh chunk within {LIMIT_S:g} s of its start (*resume*); "
        "its *memory is kept* also where that takes longer. *Labels lost* are those acknowledged to the robot and not "
        "in the server's file. "
        "*Jitter* is how late a round of the loop begins.",
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
