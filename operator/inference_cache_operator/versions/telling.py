"""What is worth an event, as decided; `events` writes it."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Said:
    reason: str
    message: str
    type: Literal["Normal", "Warning"] = "Normal"
