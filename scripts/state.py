"""The memory of a server's sessions on disk: shows it, and exports it to another machine.

vlamem state show FOLDER                    every session: policy, episode, bytes, norm of its memory
vlamem state export FOLDER SESSION FILE     one session into a safetensors file
vlamem state import FOLDER FILE             the same into another folder, --name renames it

FOLDER is what 'vlamem serve --state FOLDER' was given. A session is imported only where it belongs: the same policy,
spec, normaliser, memory weights and version, as other sessions there say or as --policy and --memory say.
While a server runs on a folder nothing is imported into it.

Example: vlamem state show runs/serve

Exit status: 0 done, 1 a session is damaged, 2 not possible as asked.
"""

import argparse
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from vlamem.scripts.config import complain

if TYPE_CHECKING:
    from vlamem.deploy.server import Owner, SessionStore


def _parser() -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("vlamem state", None, (__doc__ or "").strip(), formatter_class=form)
    commands = parser.add_subparsers(dest="command", required=True)
    show = commands.add_parser("show", help="every session of a folder")
    export = commands.add_parser("export", help="one session into a file")
    take = commands.add_parser("import", help="a file's session into a folder")
    for command in (show, export, take):
        command.add_argument("folder", type=Path)
    export.add_argument("session")
    for command in (export, take):
        command.add_argument("file", type=Path)
    take.add_argument("--name", help="another name for it")
    take.add_argument("--policy", default="tiny", help="whose sessions an empty folder is for (tiny)")
    take.add_argument("--memory", nargs="+", default=["none"], help="its memory, as in 'vlamem serve' (none)")
    return parser


def _owner(folder: Path) -> "Owner | None":
    """Of the first session that can be read."""
    from vlamem.deploy.server import StateError, read_record

    for place in sorted(p for p in folder.glob("*") if p.is_dir()):
        try:
            return read_record(place).owner
        except StateError:
            continue
    return None


def _store(folder: Path, owner: "Owner", writes: bool = False) -> "SessionStore":
    from vlamem.deploy.server import SessionStore, template_of

    return SessionStore(folder, owner, template_of(owner.layout), writes=writes)


def _show(folder: Path) -> int:
    import numpy as np

    from vlamem.deploy.server import StateError, read_record

    broken = 0
    print(f"{'session':<24} {'episode':>7} {'step':>6} {'bytes':>6} {'norm':>9}  {'changed':<19}  policy, memory")
    for place in sorted(p for p in folder.glob("*") if p.is_dir()):
        try:
            record = read_record(place)
            _, state, step = _store(folder, record.owner).recover(place.name)
        except (StateError, ValueError) as error:
            complain("state show", str(error))
            broken += 1
            continue
        size = sum(x.nbytes for x in state.values())
        norm = float(np.sqrt(sum(float((x.astype(np.float64) ** 2).sum()) for x in state.values())))
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.saved))
        written = str(step) if step >= 0 else "-"
        owner = f"{record.owner.policy} {record.owner.fingerprint}, {record.owner.memory}"
        print(f"{record.name:<24} {record.episode:>7} {written:>6} {size:>6} {norm:>9.4f}  {when}  {owner}")
    return 1 if broken else 0


def main(arguments: list[str]) -> int:
    """`vlamem state`."""
    from vlamem.deploy.server import StateError, export_session, import_session

    args = _parser().parse_args(arguments)
    folder = args.folder / "sessions"
    if args.command != "import" and not folder.is_dir():
        raise StateError(f"{args.folder} holds no sessions: give the folder of 'vlamem serve --state'")
    if args.command == "show":
        return _show(folder)
    if args.command == "export":
        from vlamem.deploy.server import read_record

        record = read_record(folder / args.session)
        export_session(_store(folder, record.owner), args.session, args.file)
        print(f"{args.session} -> {args.file}")
        return 0
    owner = _owner(folder)
    if owner is None:
        from vlamem.deploy.server import load_memory_policy

        _, _, owner = load_memory_policy(args.policy, args.memory, 1)
    if not args.file.is_file():
        raise StateError(f"there is no file {args.file}: write one with 'vlamem state export'")
    with closing(_store(folder, owner, writes=True)) as store:
        session = import_session(store, args.file, args.name)
    print(f"{args.file} -> {folder / session.name}")
    return 0
