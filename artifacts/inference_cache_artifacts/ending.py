"""How a command ends: what it says to people, to whoever reads the pod, and by its exit status."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from inference_cache_artifacts.displays import failure
from inference_cache_artifacts.errors import ArtifactError, BadRequest
from inference_cache_artifacts.flags import FAILED, USAGE
from inference_cache_artifacts.interrupting import Interrupted
from inference_cache_artifacts.progress import Outcome

TERMINATION_MESSAGE_BYTES: Final = 4096
"""Kubernetes keeps no more."""
_OWN: Final = "inference_cache_artifacts"


class Ended(Exception):
    """How the work went wrong, and the exit status for it."""

    def __init__(self, outcome: Outcome, status: int) -> None:
        super().__init__(outcome.message)
        self.outcome = outcome
        self.status = status


@contextmanager
def endings() -> Iterator[None]:
    """Whatever ends the work early leaves this as Ended; what only a mistake of ours can raise goes through."""
    try:
        yield
    except ArtifactError as error:
        raise Ended(Outcome(error.reason, error.file, str(error)), USAGE if isinstance(error, BadRequest) else FAILED) from error
    except Interrupted as error:
        raise Ended(Outcome("Interrupted", None, f"ended by {error}; what was fetched is kept"), error.status) from None
    except ModuleNotFoundError as error:
        if (error.name or _OWN).partition(".")[0] == _OWN:
            raise
        message = f"the package {error.name} is missing: pip install 'inference-cache[artifacts]'"
        raise Ended(Outcome("PackageMissing", None, message), FAILED) from None


def tell(program: str, outcome: Outcome, termination_message: Path | None = None) -> None:
    """A failure, on stderr and in the file that Kubernetes reads."""
    where = f"{outcome.file}: " if outcome.file and outcome.file not in outcome.message else ""
    said = f"{program}: {outcome.reason}: {where}{outcome.message}\n"
    if termination_message is not None:
        try:
            termination_message.write_bytes(termination_text(outcome))
        except OSError as error:
            said += f"{program}: warning: --termination-message {termination_message}: {os.strerror(error.errno or 0)}\n"
    # Nobody may be there to read it.
    with suppress(OSError):
        sys.stderr.write(said)


def termination_text(outcome: Outcome) -> bytes:
    """JSON of at most TERMINATION_MESSAGE_BYTES; a message that is too long is cut."""
    document = failure(outcome)
    while len(text := json.dumps(document, ensure_ascii=False).encode(errors="replace")) > TERMINATION_MESSAGE_BYTES:
        excess = len(text) - TERMINATION_MESSAGE_BYTES
        document["message"] = document["message"][: -max(1, excess // 4) - 1] + "…"
    return text
