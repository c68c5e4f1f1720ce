"""deploy/server/keys.py: what a client may do comes from the role of its key, and a label's source with it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from deploy_cases import LONG_S, client, get, label, options, run, serving, store_in
from websockets.exceptions import InvalidStatus

from vlamem.deploy.server.keys import Keys, Role
from vlamem.deploy.server.labels import Label, LabelLimitError, LabelQueue
from vlamem.deploy.server.sessions import SessionError, SessionLimits, SessionTable
from vlamem.scripts.keys import read_key, read_keys

KEYS: tuple[tuple[Role, str], ...] = (("reader", "r"), ("robot", "b"), ("verifier", "v"), ("operator", "o"))


@contextlib.asynccontextmanager
async def shown(port: int, key: str) -> AsyncIterator[Any]:
    async with client(port, additional_headers={"Authorization": f"Api-Key {key}"}) as c:
        yield c


def test_a_robots_label_waits_for_an_operator_or_a_verifier_and_its_source_is_its_role(tmp_path: Path) -> None:
    async def scenario() -> None:
        done: list[tuple[int, str, str]] = []

        def process(given: Label) -> str:
            done.append((given.episode, given.outcome, given.source))
            return "done"

        queue = LabelQueue(tmp_path / "l.jsonl", process)
        parts = {"labels": queue, "store": store_in(tmp_path / "s")}
        async with serving(options=options(keys=KEYS), **parts) as server:
            async with shown(server.port, "b") as robot:
                await robot.ask("hello", session="arm")
                for episode in (1, 2, 3):
                    await robot.ask("episode_start", episode=episode)
                    said = await robot.ask(
                        "label", label=f"{episode}", episode=episode, outcome="success", source="predicate"
                    )
                    assert said["vlamem"]["quarantined"] is True
                await robot.ask("episode_end")
                other = await robot.ask("label", session="arm", label="x", episode=1, outcome="failure")
                assert other["vlamem"]["code"] == "role"
            assert queue.drain(LONG_S)
            assert done == []
            for key, episode, outcome in (("v", 1, "success"), ("o", 2, "failure")):
                async with shown(server.port, key) as c:
                    head = {"label": "p", "episode": episode, "outcome": outcome, "source": "camera"}
                    assert (await c.ask("label", session="arm", **head))["vlamem"]["type"] == "labelled"
                    assert (await c.ask("label", session="leg", **head))["vlamem"]["code"] == "unknown"
                    assert (await c.ask("label", session="arm", **head | {"episode": 9}))["vlamem"]["code"] == "episode"
            assert queue.drain(LONG_S)
            assert done == [(1, "success", "verifier:camera"), (2, "failure", "operator:camera")]
            assert [held.episode for held in queue.quarantined] == [3]
        queue.close()
        again = LabelQueue(tmp_path / "l.jsonl", process)
        assert [held.source for held in again.quarantined] == ["robot:predicate"]
        assert again.drain(LONG_S)
        again.close()
        assert len(done) == 2

    run(scenario)


def test_a_robots_label_of_an_episode_that_is_labelled_changes_nothing(tmp_path: Path) -> None:
    done: list[str] = []
    queue = LabelQueue(tmp_path / "l.jsonl", lambda given: done.append(given.label) or "done")
    queue.add(label("a"))
    assert queue.add(replace(label("b", "failure"), quarantined=True))
    assert queue.drain(LONG_S)
    assert (done, queue.quarantined) == (["a"], ())
    queue.close()


def test_what_does_not_fit_into_the_quarantine_is_refused_and_other_robots_have_theirs(tmp_path: Path) -> None:
    queue = LabelQueue(tmp_path / "l.jsonl", lambda given: "done")
    given = [replace(label("a"), episode=n, quarantined=True) for n in range(queue.most_quarantined + 1)]
    for each in given[:-1]:
        assert queue.add(each)
    with pytest.raises(LabelLimitError, match="64 labels of session 'arm' wait for an operator"):
        queue.add(given[-1])
    assert queue.add(replace(given[-1], session="leg"))
    assert queue.add(replace(label("o"), episode=0))
    assert queue.add(given[-1])
    assert queue.drain(LONG_S)
    assert queue.pending == frozenset()  # and no trace is pinned
    queue.close()
    assert '"quarantined": true' in (tmp_path / "l.jsonl").read_text()


def test_a_key_does_what_its_role_may_and_no_more() -> None:
    async def scenario() -> None:
        async with serving(options=options(keys=KEYS)) as server:
            for key, status in (("r", 200), ("b", 200), ("x", 401)):
                assert (await asyncio.to_thread(get, server.port, "/metrics", key))[0] == status
            for key, refused in (("r", "403"), ("x", "401")):
                with pytest.raises(InvalidStatus, match=refused):
                    async with shown(server.port, key):
                        pass
            async with shown(server.port, "v") as c:
                for kind in ("hello", "reset", "episode_start"):
                    assert (await c.ask(kind, session="arm", episode=1))["vlamem"]["code"] == "role"
            async with shown(server.port, "o") as c:
                await c.ask("hello", session="arm")
                await c.ask("episode_start", episode=1)
                assert await c.memory(1, 0) == 0

    run(scenario)


def test_keys_are_read_with_their_roles_and_a_file_of_version_0_1_as_ever(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    for text, found in (
        ("secret\n", (("operator", "secret"),)),
        ("secret\nnotes\n", (("operator", "secret"),)),
        ("robot b\n\nreader r\n", (("robot", "b"), ("reader", "r"))),
        ("secret\nrobot b\n", (("operator", "secret"), ("robot", "b"))),
    ):
        path.write_text(text)
        assert read_keys(path) == found
        assert read_key(path) == found[0][1]
    path.write_text("robot b\nrobots c\n")
    with pytest.raises(ValueError, match="line 2: expected ROLE KEY, with a role of reader, robot"):
        read_keys(path)
    path.write_text("\n")
    with pytest.raises(ValueError, match="holds no key"):
        read_keys(path)
    assert (read_keys(None), read_key(None)) == ((), None)
    with pytest.raises(ValueError, match="twice"):
        Keys((("robot", "a"), ("operator", "a")))
    assert Keys().role_of(None) == "operator"


def test_a_key_leaves_each_other_key_a_place(tmp_path: Path) -> None:
    keys: tuple[tuple[Role, str], ...] = (("robot", "loud"), ("robot", "quiet"), ("operator", "o"), ("reader", "r"))

    async def scenario() -> None:
        async with (
            serving(options=options(keys=keys), store=store_in(tmp_path)) as server,  # four places
            shown(server.port, "loud") as a,
            shown(server.port, "loud") as b,
            shown(server.port, "loud") as c,
            shown(server.port, "quiet") as robot,
            shown(server.port, "o") as operator,
        ):
            for number, client_ in enumerate((a, b)):
                assert (await client_.ask("hello", session=f"loud-{number}"))["vlamem"]["type"] == "session"
            refused = (await c.ask("hello", session="loud-2"))["vlamem"]
            assert refused["code"] == "full"
            assert "2 sessions of this key are in use, of 4, and each other key has a place" in refused["message"]
            for number, client_ in enumerate((robot, operator)):
                assert (await client_.ask("hello", session=f"other-{number}"))["vlamem"]["type"] == "session"
            await a.ask("bye")
            assert (await c.ask("hello", session="loud-2"))["vlamem"]["type"] == "session"

    run(scenario)


def test_idle_sessions_of_a_key_go_for_its_new_ones_and_one_key_alone_may_have_all(tmp_path: Path) -> None:
    both = SessionTable(SessionLimits(count=3, idle_s=10.0), 3, keys=2, key_of=int)
    for number, used in enumerate((0.0, 100.0)):
        both.create(f"s{number}", 7, used)
    both.check_share(7, 105.0)  # the first is idle by now
    both.create("s2", 7, 105.0)
    with pytest.raises(SessionError, match="2 sessions of this key are in use, of 3"):
        both.check_share(7, 106.0)
    both.check_share(8, 106.0)
    alone = SessionTable(SessionLimits(count=2), 2, keys=1, key_of=int)
    for number in range(2):
        alone.create(f"s{number}", 7, 0.0)
    alone.check_share(7, 0.0)
    with pytest.raises(SessionError, match="all 2 sessions are in use"):
        alone.create("s2", 7, 0.0)
