"""What the controller reads of a sidecar's `/status`; a test of the sidecar guards that it says so.

The document has more members, for people; this one names those that a decision hangs on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

FlushState = Literal["running", "done", "failed"]


@dataclass(frozen=True, slots=True)
class FlushReport:
    id: str
    state: FlushState
    """`running`: perhaps at another replica; `failed`: it is tried again."""
    acknowledged: bool
    """Nothing that was stored before is served any more, by any replica."""
    keys: int | None
    """Entries deleted so far, in the shared store or here; None before they are counted."""
    epoch: int | None
    """That makes what was stored before unreachable."""


@dataclass(frozen=True, slots=True)
class SidecarStatus:
    configuration: str
    """`configuration.digest` of the one in force; empty before the first. A refused one is not in force."""
    refused: tuple[str, ...]
    """Problems of the latest configuration, each with its path, where it was refused."""
    draining: bool
    """The model server was told to end: nothing is served from the cache or stored any more. Only of a pod that has a deletionTimestamp it
    says that this stays so: where the model server alone is restarted, the drain ends with its next process."""
    model_version: str
    mode: str
    flushes: tuple[FlushReport, ...]
    store_healthy: bool | None
    """None: there is no shared store."""
    store_findings: tuple[str, ...]
    """What keeps the shared store from doing what it is for, one sentence each."""
    ignored: tuple[str, ...] = ()
    """Fields of the configuration in force that the sidecar does not know, and so does not heed: it is older than the resource."""


def read_sidecar_status(document: Mapping[str, Any]) -> SidecarStatus:
    """Raises ValueError if this is not a sidecar's status."""
    try:
        applied, shared = document["configuration"], document["sharedStore"]
        return SidecarStatus(
            configuration=str(applied["digest"]),
            refused=tuple(map(str, applied["refused"])),
            draining=bool(document["draining"]),
            model_version=str(document["modelVersion"]),
            mode=str(document["mode"]),
            flushes=tuple(_flush(raw) for raw in document["flushes"]),
            store_healthy=None if shared is None else bool(shared["healthy"]),
            store_findings=() if shared is None else tuple(str(each["text"]) for each in shared["findings"] if each["level"] == "problem"),
            ignored=tuple(map(str, applied.get("ignored", ()))),
        )
    except (KeyError, TypeError) as error:
        raise ValueError("not a sidecar's status") from error


def _flush(raw: Mapping[str, Any]) -> FlushReport:
    return FlushReport(str(raw["id"]), raw["state"], bool(raw["acknowledged"]), raw["keys"], raw["epoch"])
