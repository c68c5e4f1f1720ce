"""Answers the messages of one connection: openpi's protocol, and vlamem's sessions, episodes, ticks and labels."""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

from vlamem.deploy.bounds import MOST_EPISODES
from vlamem.deploy.server.error_codes import code_of, text_of
from vlamem.deploy.server.keys import DRIVES, LABELS_ANY, Role, source_of
from vlamem.deploy.server.labels import Label, LabelError
from vlamem.deploy.server.session_record import check_name
from vlamem.deploy.server.sessions import Session, SessionError
from vlamem.deploy.server.state import ServerState
from vlamem.deploy.wire import WireError, pack, unpack

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection

log = logging.getLogger("vlamem.serve")
_NONCE = 22, 128
"""Letters of a nonce, which becomes a token: 128 random bits have 22."""
_LONGEST_NAME = 64
_LARGE = 1 << 20
"""Bytes of a message from which it is read in a thread."""


class MessageHandler:
    """Answers the messages of one connection.

    A client that opens no session (openpi's) gets one that ends with its connection. `role` is that of its key.
    """

    def __init__(self, state: ServerState, connection: "ServerConnection", role: Role = "operator") -> None:
        self.state, self._connection, self.role = state, connection, role
        self.session: Session | None = None
        self.errors = 0
        self._last_total_ms = 0.0

    async def answer(self, raw: bytes | str) -> bytes | str | None:
        """The reply to one message; to a wrong one an error with an id that the server's log has too."""
        began = time.perf_counter()
        extended, seq = False, None
        try:
            if isinstance(raw, str):
                raise WireError("a text message: expected msgpack, as openpi-client sends it")
            message = await self.unpack(raw)
            if not isinstance(message, dict):
                raise WireError(f"a message of type {type(message).__name__}: expected a map")
            head = message.get("vlamem")
            if head is None:
                return self._timed(await self._openpi(message), began)
            extended = True
            if not isinstance(head, dict):
                raise WireError(f"'vlamem' holds a {type(head).__name__}: expected a map with a type")
            seq = head.get("seq")
            reply = await self._extended(head, message)
            reply["vlamem"]["seq"] = seq
            return self._timed(reply, began)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # whatever a client provokes, it gets a reply and the others go on
            return self.error_reply(error, extended, seq)

    async def unpack(self, raw: bytes) -> Any:
        """The message in `raw`; a large one is read beside the loop, for which the others wait. Raises WireError."""
        if len(raw) < _LARGE:
            return unpack(raw, self.state.options.wire)
        return await asyncio.to_thread(unpack, raw, self.state.options.wire)

    def error_reply(self, error: Exception, extended: bool, seq: Any = None) -> bytes | str:
        """The reply that reports an error: short, with an id; the log has the rest."""
        self.errors += 1
        name = secrets.token_hex(6)
        code, text = code_of(error), text_of(error)
        if code == "internal":
            log.error("error %s", name, exc_info=error)
        else:
            log.info("error %s (%s): %s", name, code, error)
        self.state.metrics.errors.labels(code).inc()
        if not extended:
            return f"vlamem error {name} ({code}): {text}"
        body = {"type": "error", "id": name, "code": code, "message": text[:500]}
        return pack({"vlamem": body | {"seq": seq if isinstance(seq, int | str) else None}})

    def disconnected(self) -> None:
        """The connection has ended; a session that was opened by name waits to be resumed."""
        session, self.session = self.session, None
        if session is not None and self.state.table.disconnect(session, self._connection, time.monotonic()):
            self.state.release(session, gone=True)

    async def require_session(self) -> Session:
        """The session of this connection; a new one without a name when it has none.

        Raises SessionError for a key that drives no robot, and where another connection has resumed the session.
        """
        self._check_drives()
        if self.session is None:
            self.session, _, _ = await self.state.open(None, None, self._connection)
        if self.session.connection is not self._connection:
            raise SessionError("taken", f"session '{self.session.name}' was resumed by another connection")
        self.session.used = time.monotonic()
        return self.session

    @contextlib.asynccontextmanager
    async def holding(self, session: Session) -> AsyncIterator[None]:
        """A session's lock. Raises SessionError where another connection has resumed the session meanwhile."""
        async with session.lock:
            if session.connection is not self._connection:
                raise SessionError("taken", f"session '{session.name}' was resumed by another connection")
            yield

    def _check_drives(self) -> None:
        if self.role not in DRIVES:
            raise SessionError("role", f"this key is a {self.role}'s and drives no robot: show a robot's")

    async def _openpi(self, message: Mapping[Any, Any]) -> dict[str, Any]:
        """openpi's protocol: every observation is a plan; {"reset": True}, of RoboMME's fork, begins an episode."""
        session = await self.require_session()
        async with self.holding(session):
            if message.get("reset"):
                await self.state.begin(session, session.episode + 1)
                return {"reset_finished": True}
            if session.episode == 0:
                if (several := self.state.policy.history) > 1:
                    log.warning(
                        "%s speaks openpi's protocol, which numbers no steps, and the policy reads %d observations at "
                        "once: its chunks are right if every control step is sent, not those of plans alone",
                        self._connection.remote_address,
                        several,
                    )
                await self.state.begin(session, 1)
            obs = self.state.reader.read(message)
            decision = await self.state.observe(session, session.step + 1, obs, plan=True)
        return {"actions": decision.chunk, "policy_timing": {"infer_ms": 1e3 * decision.took_s}}

    async def _extended(self, head: Mapping[Any, Any], message: Mapping[Any, Any]) -> dict[str, Any]:
        kind = head.get("type")
        if kind == "hello":
            return await self._hello(head)
        if kind == "label":
            return await self._label(head)
        session = await self.require_session()
        async with self.holding(session):
            if kind == "observe":
                return await self._observe(session, head, message)
            if kind == "episode_start":
                fresh = await self.state.begin(session, _count(head, "episode", 1))
                return {"vlamem": {"type": "episode", "episode": session.episode, "step": session.step, "fresh": fresh}}
            if kind == "episode_end":
                await self._end(session, head)
                return {"vlamem": {"type": "ended", "episode": session.episode, "step": session.step}}
            if kind == "reset":
                await self.state.begin(session, session.episode + 1)
                return {"vlamem": {"type": "episode", "episode": session.episode, "step": -1, "fresh": True}}
            if kind == "bye":
                self.state.drop(session)
                self.session = None
                return {"vlamem": {"type": "bye"}}
        known = "hello, episode_start, observe, episode_end, label, reset, bye"
        raise WireError(f"message type {str(kind)[:40]!r} is unknown: expected one of {known}")

    async def _hello(self, head: Mapping[Any, Any]) -> dict[str, Any]:
        self._check_drives()
        name, token, nonce = head.get("session"), head.get("token"), head.get("nonce")
        if name is not None:
            check_name(name)
        if token is not None and not isinstance(token, str):
            raise WireError("the token is no text")
        if nonce is not None and not (isinstance(nonce, str) and _NONCE[0] <= len(nonce) <= _NONCE[1]):
            raise WireError(f"the nonce is no text of {_NONCE[0]} to {_NONCE[1]} letters: draw 24 random bytes")
        writer = head.get("writer", "")
        if not isinstance(writer, str) or len(writer) > _LONGEST_NAME:
            raise WireError(f"the writer is no text of at most {_LONGEST_NAME} letters")
        fence = (_count(head, "epoch", 0) if "epoch" in head else 0, writer)
        if self.session is not None:
            raise SessionError("order", f"this connection has session '{self.session.name}' already")
        session, fresh, restored = await self.state.open(name, token, self._connection, nonce, fence)
        self.session = session
        body = {
            "type": "session",
            "session": session.name,
            "episode": session.episode,
            "step": session.step,
            "restored": restored,
            "ended": session.ended,
        }
        return {"vlamem": body if fresh is None else body | {"token": fresh}}

    async def _observe(self, session: Session, head: Mapping[Any, Any], message: Mapping[Any, Any]) -> dict[str, Any]:
        episode, step = _count(head, "episode", 1), _count(head, "step", 0)
        if not session.check_step(episode, step, time.monotonic(), self.state.policy.spec.control_hz):
            self.state.metrics.duplicates.inc()
            if session.reply is not None and session.reply["vlamem"]["step"] == step:
                return session.reply | {"vlamem": session.reply["vlamem"] | {"duplicate": True}}
            return {"vlamem": {"type": "tick", "episode": episode, "step": step, "duplicate": True}}
        obs = self.state.reader.read(message)
        if (action := head.get("executed")) is not None:
            self.state.record_action(session, step, action)
        if (report := head.get("report")) is not None:
            self.state.record_report(session, step, report)
        skipped = step - session.step - 1
        decision = await self.state.observe(session, step, obs, plan=bool(head.get("plan")))
        body: dict[str, Any] = {
            "type": "tick" if decision.chunk is None else "chunk",
            "episode": episode,
            "step": step,
            "wrote": decision.wrote,
            "gate": decision.gate,
            "surprise": decision.surprise,
            "confidence": decision.confidence,
        }
        if decision.weight is not None:
            body["weight"] = decision.weight
        if skipped and self.state.policy.history > 1:
            body["skipped"] = skipped
        session.reply = {"vlamem": body}
        if decision.chunk is not None:
            session.reply |= {"actions": decision.chunk, "policy_timing": {"infer_ms": 1e3 * decision.took_s}}
        return dict(session.reply) | {"vlamem": dict(body)}

    async def _end(self, session: Session, head: Mapping[Any, Any]) -> None:
        episode = _count(head, "episode", 0) if "episode" in head else session.episode
        if episode > session.episode:
            raise SessionError("episode", f"episode {episode} of session '{session.name}' has not begun")
        if episode == session.episode:
            await self.state.end(session)

    async def _label(self, head: Mapping[Any, Any]) -> dict[str, Any]:
        """A label is on disk before it is acknowledged, and processed when its episode is over.

        It is of this connection's session, or of the one that is named: then the key must be one that labels any.
        """
        if "session" in head:
            if self.role not in LABELS_ANY:
                raise SessionError(
                    "role", f"this key is a {self.role}'s and labels its own session: leave 'session' out"
                )
            name, token, running, over = self.state.find_session(head["session"])
        else:
            session = await self.require_session()
            name, token, running, over = session.name, session.token, session.episode, session.ended
        queue = self.state.labels
        if queue is None:
            raise LabelError("this server keeps no labels: start it with --state FOLDER")
        episode = _count(head, "episode", 1)
        if episode > running:
            raise SessionError("episode", f"episode {episode} of session '{name}' has not begun")
        said = head.get("source")
        if said is not None and not (isinstance(said, str) and 0 < len(said) <= _LONGEST_NAME):
            raise LabelError(f"the source of a label is 1 to {_LONGEST_NAME} letters")
        if head.get("outcome") not in ("success", "failure"):
            raise LabelError(f"outcome {str(head.get('outcome'))[:40]!r}: expected 'success' or 'failure'")
        of = name, episode, head["outcome"], source_of(self.role, said), time.time(), token[:16]
        label = Label(head.get("label", ""), *of, quarantined=self.role not in LABELS_ANY)
        async with self.state.labelling:
            added = await asyncio.to_thread(queue.add, label, True)
        if added:
            self.state.metrics.labels.labels(label.outcome).inc()
            if self.state.ticks is not None:
                self.state.ticks.labelled(name, episode, label.outcome, label.source, label.quarantined)
        queue.release(name, running - (not over))
        body = {"type": "labelled", "label": label.label, "episode": episode}
        return {"vlamem": body | ({"quarantined": True} if label.quarantined else {})}

    def _timed(self, reply: dict[str, Any], began: float) -> bytes:
        total = 1e3 * (time.perf_counter() - began)
        if "actions" in reply:
            timing = {"infer_ms": total}
            if self._last_total_ms:
                timing["prev_total_ms"] = self._last_total_ms
            reply["server_timing"] = timing
            self._last_total_ms = total
        return pack(reply)


def _count(head: Mapping[Any, Any], name: str, least: int) -> int:
    value = head.get(name)
    if type(value) is not int or not least <= value <= MOST_EPISODES:
        raise WireError(f"{name} is {str(value)[:40]!r}: expected a whole number from {least} to {MOST_EPISODES}")
    return value
