"""Where the demo's servers listen, and what all of its parts say and wait for."""

import asyncio
import os
from dataclasses import dataclass, replace
from typing import Final

from inference_cache_toolkit.processes import free_port

HOST: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Plan:
    """`port` and `admin_port` are the first sidecar's; others take free ones."""

    port: int
    standin_port: int
    admin_port: int
    upstream: str | None
    """A real server; None starts the stand-in."""
    once: bool
    """End after the questions."""
    replicas: int = 1
    """Sidecars; more than one share a Redis."""

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def admin_url(self) -> str:
        return f"http://{HOST}:{self.admin_port}"

    def of_replica(self, number: int) -> "Plan":
        """The same for the sidecar `number`, from 0."""
        return replace(self, port=free_port(0, HOST), admin_port=free_port(0, HOST)) if number else self


def settled(plan: Plan) -> Plan:
    """The same plan on ports that are free; says which are others than wanted."""
    port, standin, admin = (_free(wanted) for wanted in (plan.port, plan.standin_port, plan.admin_port))
    return replace(plan, port=port, standin_port=standin, admin_port=admin)


def _free(wanted: int) -> int:
    port = free_port(wanted, HOST)
    if port != wanted:
        say(f"port {wanted} is taken, {port} is used in its place")
    return port


def say(text: str) -> None:
    print(text, flush=True)


async def until_told() -> None:
    say("It stays until you press Ctrl-C.")
    await asyncio.Event().wait()


def credential() -> dict[str, str]:
    """For a server of one's own that asks for a key."""
    key = os.environ.get("OPENAI_API_KEY")
    return {"Authorization": f"Bearer {key}"} if key else {}
