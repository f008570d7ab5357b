"""ServeConfig: what `gcrs serve` may be told, and what it refuses. Knows nothing of flags' spelling or of sockets."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from gcrs.programs.serving.doors import is_loopback
from gcrs.toolkit.errors import UsageError

LEAST_TOKEN = 16  # characters


@dataclass(frozen=True)
class ServeConfig:
    """Where the server listens, whom it answers, and its limits. UsageError for what contradicts itself."""

    host: str = "127.0.0.1"  # Address to listen on.
    port: int = 8642  # 0: any free one.
    token: str | None = None  # What every request but /health must carry; needed beyond this machine.
    max_body: int = 1_000_000  # Bytes of a request.
    timeout: float = 120.0  # Seconds for an answer, its wait included.
    running: int = 4  # Requests at work at once; they share the model token by token.
    waiting: int = 64  # Requests that may wait behind them.
    sessions: int = 1000  # Sessions in memory.
    session_dir: Path | None = None  # Where sessions are saved; None: they end with the process.

    def __post_init__(self) -> None:
        least = {"port": 0, "max_body": 1000, "timeout": 0.1, "running": 1, "waiting": 0, "sessions": 1}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in least and not value >= least[field.name]:
                flag = field.name.replace("_", "-")
                raise UsageError(f"--{flag} is {value}, expected {least[field.name]} or more.")
        if self.port > 65535:
            raise UsageError(f"--port is {self.port}, expected at most 65535.")
        if self.session_dir is not None and not self.session_dir.is_dir():
            raise UsageError(f"There is no directory {self.session_dir} for the sessions.", hint="Make it first.")
        if self.token is not None and len(self.token) < LEAST_TOKEN:
            raise UsageError(
                f"The token has {len(self.token)} characters, expected {LEAST_TOKEN} or more.",
                hint="Draw one: python -c 'import secrets; print(secrets.token_urlsafe())'",
            )
        if self.token is not None and not (self.token.isascii() and self.token.isprintable() and " " not in self.token):
            raise UsageError("The token has blanks, or characters that a header cannot carry.", hint="Use ASCII.")
        if not self.loopback and self.token is None:
            raise UsageError(
                f"--host {self.host} is not this machine alone, so a token is needed.",
                hint="Set GCRS_TOKEN, or leave --host at 127.0.0.1.",
            )

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)
