"""Serves a policy with memory to robots, over websockets; openpi's clients work as they are.

Listens on this machine alone by default. /healthz says that it lives, /metrics is for Prometheus, and the
path /vla-eval serves vla-eval's model-server protocol. Ctrl-C ends it; with --state sessions go on after a restart, and
with --respawn it starts again by itself, in a fraction of a second, when it crashes or is killed.

Example: vlamem serve --policy tiny --memory aura --state runs/serve

Exit status: 0 ended by Ctrl-C, SIGTERM or a terminal that was closed, 2 not possible as asked.
"""

import asyncio
import errno
import logging
import os
import signal
import socket
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vlamem.scripts.checks import within
from vlamem.scripts.config import load_config
from vlamem.scripts.keys import read_keys
from vlamem.scripts.signals import TERMINATION_SIGNALS

if TYPE_CHECKING:
    from vlamem.deploy.server import Child, PolicyServer


@dataclass(frozen=True)
class Args:
    """Options of `vlamem serve`."""

    policy: str
    """tiny, a weights file, or package.module:FACTORY."""
    memory: tuple[str, ...]
    """none, or memories as KIND[:FILE][?option=value]: aura (the shipped gate), aura:FILE?inject=context,
    success:FILE, which is made when missing and grows by labels; several are fused to one proposal."""
    critic: Path | None
    """Progress critic (ProgressCritic.save) that judges episodes which nobody labelled; null: these are not stored."""
    state: Path | None
    """Folder for what outlives a restart: sessions and labels."""
    respawn: bool
    """Serve in a child process and start it again when it dies; what is imported is kept (Linux)."""
    host: str
    """Address to listen on; one beyond this machine needs a key."""
    port: int
    """Port; 0 takes a free one."""
    api_key_file: Path | None
    """File of the keys that clients must show, one a line as ROLE KEY (reader, robot, verifier, operator); a first line
    without a role is an operator's."""
    tls_cert: Path | None
    """PEM certificate; with --tls-key the server uses wss://."""
    tls_key: Path | None
    """PEM private key."""
    sessions: int
    """Robots at a time."""
    idle_s: float
    """A robot that was lost keeps its place for this long; a silent one, until another wants it."""
    session_mb: int
    """Disk that the newest episodes of a robot may take, for labels that come later [MB]."""
    trace_mb: int
    """Disk for traces of every control step, in --state, of which the oldest are removed [MB]; 0 writes none."""
    wait_ms: float
    """Longest wait of a frame for frames of other robots."""
    execute: int
    """Actions of a chunk that a vla-eval client executes."""
    rename: tuple[str, ...]
    """Names of observation entries, THEIRS=OURS."""
    allow_origin: tuple[str, ...]
    """Web pages, and clients that send an Origin header, that may connect, e.g. http://panel.local:5000."""
    threads: int
    """Threads of arithmetic; 0 leaves it to the libraries."""
    seed: int
    """Of the policy's noise."""
    log_level: str
    """debug, info, warning or error."""


def _renames(words: tuple[str, ...]) -> dict[str, str]:
    pairs = [word.partition("=") for word in words]
    for theirs, sign, ours in pairs:
        if not sign or not theirs or not ours:
            raise ValueError(f"rename '{theirs}{sign}{ours}': expected THEIRS=OURS, e.g. observation/image=agentview")
    return {theirs: ours for theirs, _, ours in pairs}


def _check(args: Args) -> None:
    """Wrong options are refused now, and not when weights are loaded. Raises ValueError, FileNotFoundError."""
    for name in ("sessions", "session_mb", "execute"):
        within(f"--{name.replace('_', '-')}", getattr(args, name), 1)
    for name in ("wait_ms", "idle_s", "threads", "trace_mb"):
        within(f"--{name.replace('_', '-')}", getattr(args, name), 0)
    within("--port", args.port, 0, 65535)
    for name in ("tls_cert", "tls_key"):
        path = getattr(args, name)
        if path is not None and not path.is_file():
            raise FileNotFoundError(f"--{name.replace('_', '-')} {path}: there is no such file")
    try:
        places = socket.getaddrinfo(args.host, args.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise OSError(f"--host {args.host}: {error.strerror}") from error
    for family, kind, protocol, _, address in places if args.port else ():
        try:
            with socket.socket(family, kind, protocol) as free:
                free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                free.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise OSError(f"{args.host}:{args.port} is in use by another program: give another --port") from error


async def _serve(server: "PolicyServer", scheme: str, host: str, child: "Child | None") -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in TERMINATION_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            loop.add_signal_handler(number, stop.set)
    async with server.running() as port:
        if child is not None:
            child.listening(port, lambda: loop.call_soon_threadsafe(stop.set))
        _say(f"serving on {address(scheme, host, port)}")
        await stop.wait()
    _say("stopped")


def address(scheme: str, host: str, port: int) -> str:
    """What a client connects to; an IPv6 address is in brackets there."""
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _say(line: str) -> None:
    """Robots are served also where no one reads this any more."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(arguments: list[str]) -> int:
    """`vlamem serve`."""
    args = load_config(Args, "serve", arguments, __doc__ or "")
    from vlamem.deploy.server import ServeOptions, SessionLimits, build_server, preload

    _check(args)
    logging.basicConfig(level=args.log_level.upper(), format="%(asctime)s %(name)s %(levelname)s %(message)s")
    options = ServeOptions(
        host=args.host,
        port=args.port,
        keys=read_keys(args.api_key_file),
        certificate=args.tls_cert,
        private_key=args.tls_key,
        sessions=SessionLimits(count=args.sessions, idle_s=args.idle_s, bytes=args.session_mb << 20),
        wait_s=args.wait_ms / 1e3,
        execute=args.execute,
        rename=_renames(args.rename),
        origins=args.allow_origin,
        seed=args.seed,
    )
    print(f"vlamem serve: loading {args.policy}, memory {' '.join(args.memory)}", file=sys.stderr, flush=True)
    child = None
    if args.respawn:
        from vlamem.deploy.server import respawn

        child = respawn(lambda: preload(args.policy))
        options = replace(options, port=args.port if child.port is None else child.port)
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    server, labels = build_server(args.policy, args.memory, args.state, options, args.critic, args.trace_mb << 20)
    try:
        asyncio.run(_serve(server, "wss" if args.tls_cert else "ws", args.host, child))
    finally:
        if labels is not None:
            labels.drain(0 if child is not None and child.orphaned else 10)  # the next server is on its way
            labels.close()
    return 0
