"""Questions to ask of a cache: any number of distinct ones, each with rephrasings that ask the same.

The serving bench sends them, `prefilled` stores them. Names are made up, so no two questions share an answer.
"""

from typing import Final

import orjson

_OPENINGS: Final = ("How can I", "How could I", "How would I")
_ACTIONS: Final = (
    "reset the password of",
    "export the invoices of",
    "change the owner of",
    "move the backups of",
    "renew the licence of",
    "rename the project in",
    "turn on notifications for",
    "see the audit log of",
    "invite a colleague to",
    "restore a deleted file in",
    "connect a printer to",
    "raise the storage limit of",
    "translate the interface of",
    "schedule a report in",
    "import contacts into",
    "close the account of",
    "set a spending limit for",
    "find the serial number of",
    "measure the latency of",
    "update the firmware of",
)
_CIRCUMSTANCES: Final = (
    "from a phone",
    "without an administrator",
    "before a holiday",
    "for a new team",
    "after a merger",
    "on a slow connection",
    "in the evening",
    "during a migration",
    "behind a firewall",
    "on a shared computer",
    "from the command line",
    "at a customer's site",
    "on an old laptop",
    "with two accounts",
    "at the end of the month",
    "over a satellite link",
    "in a test environment",
    "before the trial ends",
    "after a power failure",
    "without losing history",
)
_FIRST: Final = (
    "Bel",
    "Cor",
    "Dun",
    "Fal",
    "Gar",
    "Hel",
    "Jor",
    "Kel",
    "Lum",
    "Mar",
    "Nor",
    "Pel",
    "Quin",
    "Ros",
    "Sel",
    "Tor",
    "Vel",
    "Wen",
    "Zan",
)
_LAST: Final = (
    "adra",
    "bex",
    "cora",
    "dime",
    "elo",
    "fira",
    "gano",
    "hile",
    "ista",
    "kova",
    "lume",
    "mira",
    "nexa",
    "olo",
    "pira",
    "rano",
    "vano",
)
NAMES: Final = tuple(first + last for first in _FIRST for last in _LAST)
COUNT: Final = len(NAMES) * len(_ACTIONS) * len(_CIRCUMSTANCES)
_STRIDE: Final = 40_009
"""Prime, so that neighbours in number differ in everything and none comes twice."""

CHAT: Final = "/v1/chat/completions"
HEADERS: Final = {"Authorization": "Bearer sk-bench", "Content-Type": "application/json", "Accept": "application/json"}
"""As every request of the bench has them."""


def stored(number: int) -> str:
    """Question `number`; two of one number are equal, others differ in their answer."""
    return f"How do I {_rest(number)}?"


def rephrased(number: int, way: int) -> str:
    """Another wording of question `number`; `way` chooses which."""
    return f"{_OPENINGS[way % len(_OPENINGS)]} {_rest(number)}?"


def _rest(number: int) -> str:
    at = number * _STRIDE % COUNT
    at, name = divmod(at, len(NAMES))
    circumstance, action = divmod(at, len(_ACTIONS))
    return f"{_ACTIONS[action]} {NAMES[name]} {_CIRCUMSTANCES[circumstance]}"


def body(prompt: str, **fields: object) -> bytes:
    """A chat request of one turn; temperature 0 unless `fields` say otherwise, so that its answer may be kept."""
    return orjson.dumps({"model": "tiny", "messages": [{"role": "user", "content": prompt}], "temperature": 0, **fields})


def numbered(number: int) -> bytes:
    """A request that differs from all of other numbers, for the exact tier, where similarity does not count; without end."""
    return body(f"{stored(number)[:-1]} in case {number:08}?")
