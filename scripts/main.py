"""The command `vlamem`: finds the verb and hands the rest of the line to its module, which is imported only then."""

import importlib
import os
import signal
import sys

VERBS = {
    "tour": "a robot that forgets, one that remembers, one that learns, in some minutes",
    "rollout": "run a policy over a suite's tasks in simulation",
    "pretrain": "train TinyVLA on recorded demonstrations",
    "collect": "record demonstrations, or features of a frozen policy",
    "fit": "train a memory for a frozen policy from demonstrations alone",
    "train-gate": "train when AURA-Mem writes and what it proposes, on features recorded with answers",
    "bench": "measure, and write docs/results/NAME.md",
    "report": "make one HTML page of runs, with what memory did in each episode",
    "view": "show an episode in the viewer Rerun, or a run while it goes on",
    "explain": "say why memory wrote or stayed silent in an episode, and why it proposed or abstained",
    "export": "write tables, charts and records of runs for papers and other tools",
    "compare": "compare two runs, paired by task, initial state and seed",
    "memory": "look at, check, carry, prune, calibrate and draw a success memory",
    "serve": "serve a policy with memory to robots, over websockets",
    "control": "drive a robot by a served policy, within its limits",
    "state": "look at, export and import the memory of a server's sessions",
    "probe": "which tap of a frozen policy carries cue, state and progress",
    "doctor": "check this machine, or say what a checkpoint is, and what to mend",
}
"""One line for each module of this folder; `scripts/<verb, - as _>.py` has `main(arguments) -> exit status`."""
_EXTRAS = {
    "torch": "torch",
    "mujoco": "sim",
    "robosuite": "sim",
    "gymnasium": "sim",
    "av": "sim",
    "pyarrow": "sim",
    "PIL": "sim",
    "matplotlib": "sim",
    "lerobot": "lerobot",
    "msgpack": "robot",
    "websockets": "robot",
    "prometheus_client": "serve",
    "filelock": "serve",
    "rerun": "view",
    "ray": "ray",
    "sqlalchemy": "fleet",
    "alembic": "fleet",
    "psycopg": "fleet",
    "pgvector": "fleet",
}
"""Modules that the core does without, and the extra that brings each."""

_USAGE = """\
usage: vlamem VERB [options]      memory for frozen vision-language-action policies

{verbs}

'vlamem VERB --help' shows the options of a verb and an example.
With VLAMEM_TRACEBACK=1 an error shows where it came from.
"""


def _usage() -> str:
    return _USAGE.format(verbs="\n".join(f"  {verb:<15} {line}" for verb, line in VERBS.items()))


def main(arguments: list[str] | None = None) -> int:
    """Runs `vlamem` with `arguments` (those of the command line by default) and returns its exit status.

    0: done. 1: something failed or was recorded as an error. 2: the command line or its input is wrong.
    128 + signal: stopped by Ctrl-C or SIGTERM.
    """
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help", "help"):
        print(_usage(), end="")
        return 0 if words else 2
    if words[0] == "--version":
        from vlamem import __version__

        print(f"vlamem {__version__}")
        return 0
    verb = words[0]
    if verb not in VERBS:
        import difflib

        near = difflib.get_close_matches(verb, VERBS, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"choose one of {', '.join(VERBS)}"
        print(f"vlamem: unknown verb '{verb}': {hint}", file=sys.stderr)
        return 2
    module = importlib.import_module(f"vlamem.scripts.{verb.replace('-', '_')}")
    try:
        return int(module.main(words[1:]))
    except KeyboardInterrupt:
        print(f"vlamem {verb}: stopped", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # the reader of our output has gone, e.g. head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        print(f"vlamem {verb}: needs {error.name}: pip install 'vlamem[{extra}]'", file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        if os.environ.get("VLAMEM_TRACEBACK"):
            raise
        print(f"vlamem {verb}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
