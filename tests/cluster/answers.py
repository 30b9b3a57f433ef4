"""Single questions to one pod, and what its sidecar says of them."""

import json
import urllib.request
from dataclasses import dataclass

from tests.cluster.story import Cluster, until


@dataclass(frozen=True, slots=True)
class Told:
    text: str
    how: str
    """Its Cache-Status; empty where no sidecar stood before it."""

    @property
    def hit(self) -> bool:
        return "; hit" in self.how

    @property
    def looked_up(self) -> bool:
        return self.hit or "fwd=miss" in self.how

    @property
    def stored(self) -> bool:
        return "; stored" in self.how

    @property
    def by(self) -> str:
        """The model that gave it, as the stand-in says."""
        return self.text.split(" ")[0]


@dataclass(frozen=True, slots=True)
class Door:
    """Of one pod."""

    url: str
    model: str = "acme"
    seconds: float = 60.0

    def ask(self, question: str, **more: object) -> Told:
        body = json.dumps({"model": self.model, "messages": [{"role": "user", "content": question}], **more}).encode()
        request = urllib.request.Request(f"{self.url}/v1/chat/completions", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=self.seconds) as answer:
            return Told(json.load(answer)["choices"][0]["message"]["content"], answer.headers.get("Cache-Status", ""))

    def looked_up(self, question: str, **more: object) -> Told:
        """The first answer for which the cache was asked: before the sidecar knows the model, it is not."""
        told: Told = until(60, "questions are looked up", lambda: self._once(question, more))
        return told

    def kept(self, question: str) -> Told:
        """The first answer that is from the cache, or in it from now on: one that is neither came while no shared store was heard."""
        told: Told = until(60, "an answer is kept", lambda: told if (told := self.ask(question)).hit or told.stored else None)
        return told

    def _once(self, question: str, more: dict[str, object]) -> Told | None:
        told = self.ask(question, **more)
        return told if told.looked_up else None


def door(cluster: Cluster, namespace: str, pod: str, model: str = "acme") -> Door:
    return Door(cluster.forward(namespace, f"pod/{pod}", 8000), model)
