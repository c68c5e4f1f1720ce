"""How a server listens and what it allows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vlamem.deploy.server.keys import Keys, Role
from vlamem.deploy.server.sessions import SessionLimits
from vlamem.deploy.wire import DEFAULT_LIMITS, WireLimits

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class ServeOptions:
    """How a server listens.

    Attributes:
        host, port: where; port 0 takes a free one.
        api_key: that clients must send, with the role of an operator; a key is required unless host is the machine
            itself.
        keys: further keys, each with the role of those who send it.
        certificate, private_key: PEM files for TLS, both or none.
        sessions: bounds.
        wire: limits of a message.
        wait_s: longest wait of a frame for those of other sessions.
        connections: at a time.
        handshake_s: that a client may take to say who it is.
        execute: actions of a chunk that a vla-eval client gets before the next plan.
        rename: names of observation entries, theirs to ours.
        origins: that may be in a client's Origin header, as browsers send it; a client without one is always taken.
        seed: of the policy's noise.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    keys: tuple[tuple[Role, str], ...] = ()
    certificate: Path | None = None
    private_key: Path | None = None
    sessions: SessionLimits = field(default_factory=SessionLimits)
    wire: WireLimits = DEFAULT_LIMITS
    wait_s: float = 0.002
    connections: int = 128
    handshake_s: float = 5.0
    execute: int = 8
    rename: Mapping[str, str] = field(default_factory=dict)
    origins: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.host not in LOOPBACK and not (self.api_key or self.keys):
            raise ValueError(
                f"host {self.host} is reachable from elsewhere: give --api-key-file, or listen on 127.0.0.1"
            )
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("TLS needs both a certificate and its private key: give --tls-cert and --tls-key")

    @property
    def known_keys(self) -> Keys:
        """Every key with its role. Raises ValueError for one that stands twice."""
        return Keys(((("operator", self.api_key),) if self.api_key else ()) + self.keys)
