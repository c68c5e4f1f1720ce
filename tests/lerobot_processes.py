"""Processes with lerobot in them, each forked from one that has imported it: an import takes ten processor seconds.

lerobot forks when it writes videos, which a process that uses JAX must not: what a test does with its datasets is done
in a process of its own. `LerobotProcesses.run` takes the words that follow `python`, either `-c CODE ...` or `-m MODULE
...`, and gives what `subprocess.run` would.
"""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

_LOADED = ("lerobot.datasets.lerobot_dataset", "lerobot.policies.factory")


class LerobotProcesses:
    """One process that imports lerobot when it is first needed, and forks for each run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parent: subprocess.Popen[str] | None = None

    def run(self, words: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs `python WORDS` to its end, with more in its environment; Python's warnings are off."""
        if self._parent is None:
            command = [sys.executable, "-W", "ignore", str(Path(__file__).resolve())]
            alone = os.environ | {"OMP_NUM_THREADS": "1"}  # where a fork finds threads at work it may hang
            self._parent = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=alone
            )
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        out, err = self._folder / "stdout", self._folder / "stderr"
        job = {"words": words, "environment": dict(os.environ) | environment, "cwd": os.getcwd()}
        self._parent.stdin.write(json.dumps(job | {"out": str(out), "err": str(err)}) + "\n")
        self._parent.stdin.flush()
        answer = self._parent.stdout.readline()
        assert answer, "the process that has imported lerobot ended"
        texts = (path.read_text(encoding="utf-8", errors="replace") for path in (out, err))
        return subprocess.CompletedProcess(words, int(answer), *texts)

    def end(self) -> None:
        """Ends it."""
        if self._parent is not None:
            with self._parent:  # closes its input, at which it ends, and waits
                pass


def _serve() -> None:
    """Forks for each line of the input and answers with the exit status; a child returns from here and runs its job."""
    for name in _LOADED:
        __import__(name)
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            answers.close()
            _run(json.loads(line))
            return
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers, flush=True)


def _run(job: dict[str, Any]) -> None:
    """What `python WORDS` does: standard streams, environment, path and arguments are the job's."""
    for number, name in enumerate((os.devnull, job["out"], job["err"])):
        file = os.open(name, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(job["environment"])
    os.chdir(job["cwd"])
    sys.path[:1] = ["", *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    kind, what, *arguments = job["words"]
    sys.argv = [kind, *arguments]
    if kind == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    _serve()
