"""deploy/robot/connection.py against servers that answer nonsense, or nothing."""

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from deploy_cases import SPEC, collect, frame, wait
from websockets.sync.server import ServerConnection, serve

from vlamem.deploy.robot.events import EventLog
from vlamem.deploy.robot.link import Link, LinkOptions
from vlamem.deploy.wire import pack, unpack


@contextlib.contextmanager
def answering(
    reply: Callable[[int, dict[str, Any]], Mapping[str, Any] | None],
    deaf: int = 0,
    kind: type[Link] = Link,
    **options: Any,
) -> Iterator[Link]:
    """A link to a server that gives `reply(number of the connection, its message)`, and nothing where that is None.

    The first message on each connection is "joined"; on the first `deaf` ones it never answers the handshake.
    """
    connections = itertools.count(1)

    def answer(ws: ServerConnection) -> None:
        number = next(connections)
        ws.send(pack({"vlamem": {"type": "metadata", "protocol": 1, "fingerprint": SPEC.fingerprint}}))
        ws.recv()
        if number <= deaf:
            for _ in ws:
                pass
            return
        ws.send(pack({"vlamem": {"type": "session", "session": "arm", "episode": 0, "step": -1, "restored": True}}))
        for message in itertools.chain([{"type": "joined"}], (unpack(raw)["vlamem"] for raw in ws)):
            found = reply(number, message)
            if found is not None:
                ws.send(pack(found))

    with serve(answer, "127.0.0.1", 0, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        link = kind(LinkOptions(f"ws://127.0.0.1:{server.socket.getsockname()[1]}", "arm", **options), EventLog())
        try:
            link.start()
            yield link
        finally:
            link.close()
            server.shutdown()
            thread.join()


def understood(message: dict[str, Any]) -> dict[str, Any] | None:
    """What a server answers that takes everything."""
    kind = {"episode_start": "episode", "observe": "tick"}.get(message["type"])
    return None if kind is None else {"vlamem": message | {"type": kind}}


@pytest.mark.parametrize(
    "nonsense",
    [
        {"vlamem": {"type": "chunk", "episode": 1}},
        {"vlamem": {"type": "chunk", "episode": 0, "step": 0}, "actions": "to the left"},
        {"vlamem": {"type": "labelled"}},
        {"vlamem": {"type": "error", "code": "label", "seq": "what is this"}},
        {"vlamem": {"type": "error", "code": "observation", "seq": "start one"}},
    ],
)
def test_an_answer_that_makes_no_sense_costs_a_connection_and_not_the_link(nonsense: dict[str, Any]) -> None:
    def reply(connection: int, message: dict[str, Any]) -> Mapping[str, Any] | None:
        return nonsense if connection == 1 and message["type"] == "joined" else understood(message)

    with answering(reply) as link:
        wait(lambda: link._events.counts["connected"] == 2)
        link.begin(1)
        link.send(frame(0))
        assert collect(link, 0).kind == "tick"
        assert link._events.counts["server_lost"] == 1
        assert link.trouble is None


@pytest.mark.parametrize("swallowed", ["episode_start", "observe"])
def test_a_server_that_does_not_answer_is_left_though_frames_keep_coming(swallowed: str) -> None:
    def reply(connection: int, message: dict[str, Any]) -> Mapping[str, Any] | None:
        return None if connection == 1 and message["type"] == swallowed else understood(message)

    with answering(reply, reply_s=0.5) as link:
        link.begin(1)
        steps = itertools.count()

        def keeps_coming() -> bool:
            link.send(frame(next(steps)))
            return bool(link.poll()) and link._events.counts["connected"] > 1

        wait(keeps_coming)
        assert link._events.counts["server_lost"] >= 1


def test_a_handshake_that_was_lost_is_tried_again_with_more_patience_each_time() -> None:
    waited: list[float] = []

    class Noted(Link):
        async def _join(self, connection: Any) -> Any:
            waited.append(self._handshake_s)
            return await super()._join(connection)

    with answering(lambda connection, message: understood(message), deaf=2, kind=Noted, reply_s=2.0) as link:
        assert waited == [0.5, 1.0, 2.0]
        assert link._handshake_s == 0.5
