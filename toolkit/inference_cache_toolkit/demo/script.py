"""What the demo asks, and the answers its stand-in gives. `conductor` asks it in this order."""

from dataclasses import dataclass
from typing import Any, Final

BRIEFLY: Final = ("system", "You are the help desk of a shop. Answer in one short sentence.")
"""So that a real model comes to an end: an answer that was cut off is never given to another question."""


@dataclass(frozen=True, slots=True)
class Step:
    """One question, perhaps by several callers at once."""

    title: str
    question: str
    earlier: tuple[tuple[str, str], ...] = ()
    """Turns before the question: role and text."""
    stream: bool = False
    callers: int = 1

    def body(self, model: str) -> dict[str, Any]:
        turns = [{"role": role, "content": text} for role, text in (BRIEFLY, *self.earlier, ("user", self.question))]
        return {"model": model, "messages": turns, "max_tokens": 200, **({"stream": True} if self.stream else {})}


_ABOUT_PREMIUM: Final = (("user", "Tell me about the premium plan."), ("assistant", "It has 2 TB of storage and phone support."))
_ABOUT_BASIC: Final = (("user", "Tell me about the basic plan."), ("assistant", "It has 10 GB of storage."))

STEPS: Final = (
    Step("a new question", "How do I reset my password?"),
    Step("the same again", "How do I reset my password?"),
    Step("written otherwise", "  how do I reset my  password "),
    Step("in other words", "How can I reset my password?"),
    Step("the same, streamed", "How do I reset my password?", stream=True),
    Step("a new question, streamed", "Does the warranty cover water damage?", stream=True),
    Step("in other words", "Is water damage covered by the warranty?"),
    Step("its opposite", "Does the warranty not cover water damage?"),
    Step("a new question", "Does version 2.1 support single sign-on?"),
    Step("another number", "Does version 3.1 support single sign-on?"),
    Step("a new question", "How do I convert USD to EUR?"),
    Step("the other direction", "How do I convert EUR to USD?"),
    Step("in a conversation", "What does it cost per month?", earlier=_ABOUT_PREMIUM),
    Step("rephrased in the same", "What does it cost a month?", earlier=_ABOUT_PREMIUM),
    Step("the same in another", "What does it cost per month?", earlier=_ABOUT_BASIC),
    Step("five callers at once", "Where can I download my invoices?", callers=5),
)

ANSWERS: Final = {
    "How do I reset my password?": "Open Settings, choose Security, then Reset password; you are sent a link.",
    "Does the warranty cover water damage?": "Yes, for the first two years; send the device in with the receipt.",
    "Does the warranty not cover water damage?": "It does cover it, for the first two years.",
    "Does version 2.1 support single sign-on?": "No, version 2.1 knows only passwords and one-time codes.",
    "Does version 3.1 support single sign-on?": "Yes, version 3.1 supports it with SAML and with OpenID Connect.",
    "How do I convert USD to EUR?": "Open Wallet, choose your dollars, then Convert, and name euros as the target.",
    "How do I convert EUR to USD?": "Open Wallet, choose your euros, then Convert, and name dollars as the target.",
    "Where can I download my invoices?": "All invoices are listed under Account, Billing; each has a button that downloads it as PDF.",
}

TOLD: Final = (Step("a new question", "How do I reset my password?"), Step("a new question", "Does the warranty cover water damage?"))
SHARED: Final = (
    Step("the same at another", "How do I reset my password?"),
    Step("in other words there", "How can I reset my password?"),
    Step("the same, streamed", "How do I reset my password?", stream=True),
)
"""What one sidecar is told, and what another then knows."""
