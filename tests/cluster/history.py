"""What happened to pods and to a cache, in the order in which the API server wrote it, so that a test can say what came before what."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.cluster import binaries, servers
from tests.cluster.story import ready

from inference_cache_contract.configuration import read_configuration
from inference_cache_contract.pod import CONFIGURATION_ANNOTATION, VERSION_ANNOTATION

END_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Change:
    """One write."""

    number: int
    """Grows with every write to the cluster, of whatever object."""
    type: str
    """`ADDED`, `MODIFIED` or `DELETED`."""
    body: Mapping[str, Any] = field(repr=False)

    @property
    def uid(self) -> str:
        return str(self.body["metadata"]["uid"])

    @property
    def version(self) -> str | None:
        annotations = self.body["metadata"].get("annotations") or {}
        return None if (version := annotations.get(VERSION_ANNOTATION)) is None else str(version)

    @property
    def serving(self) -> bool:
        """A pod that is Ready and stays."""
        return self.type != "DELETED" and ready(self.body) and "deletionTimestamp" not in self.body["metadata"]

    @property
    def ended(self) -> bool:
        """A pod whose containers have all ended, or that is gone."""
        return self.type == "DELETED" or (self.body.get("status") or {}).get("phase") in ("Succeeded", "Failed")

    @property
    def ending(self) -> bool:
        return self.type != "DELETED" and "deletionTimestamp" in self.body["metadata"]


@dataclass(frozen=True, slots=True)
class History:
    """Of one namespace. What is asked of it is read from what was written so far."""

    files: Mapping[str, Path]

    def pods(self, app: str = "vllm") -> list[Change]:
        return [each for each in self._changes("pods") if each.body["metadata"].get("labels", {}).get("app") == app]

    def caches(self) -> list[Change]:
        return self._changes("inferencecaches")

    def end_of(self, version: str) -> int | None:
        """When the last pod of a version had ended; None while one runs, or where there was none."""
        pods = [each for each in self.pods() if each.version == version]
        ends: dict[str, int | None] = {each.uid: None for each in pods}
        for each in reversed(pods):
            if each.ended:
                ends[each.uid] = each.number
        known = [number for number in ends.values() if number is not None]
        return max(known) if known and len(known) == len(ends) else None

    def first(self, told: Callable[[Change], bool], changes: list[Change]) -> int | None:
        return next((each.number for each in changes if told(each)), None)

    def flushed(self, version: str) -> int | None:
        """When the cache's status first said that a version is flushed."""
        return self.first(lambda each: version in flushed_versions(each.body.get("status") or {}), self.caches())

    def ordered(self, version: str) -> int | None:
        """When a pod was first told to flush a version."""
        return self.first(lambda each: version in _orders(each), self.pods())

    def serving_counts(self) -> list[int]:
        """How many pods were Ready and staying, after each change."""
        serving = dict[str, bool]()
        counts = []
        for each in self.pods():
            serving[each.uid] = each.serving
            counts.append(sum(serving.values()))
        return counts

    def _changes(self, kind: str) -> list[Change]:
        # What is being written may end amid a character.
        documents = _documents(self.files[kind].read_text(errors="replace"))
        return [Change(int(each["object"]["metadata"]["resourceVersion"]), each["type"], each["object"]) for each in documents]


def _orders(pod: Change) -> list[str]:
    text = (pod.body["metadata"].get("annotations") or {}).get(CONFIGURATION_ANNOTATION)
    return [] if not text else [order.value for order in read_configuration(text).flushes]


def flushed_versions(status: Mapping[str, Any]) -> dict[str, int]:
    """Entries that were deleted, by version; of the last flush of each."""
    return {each["version"]: each["keys"] for each in status.get("flushedVersions") or ()}


@contextmanager
def history(kubeconfig: Path, namespace: str, folder: Path) -> Iterator[History]:
    """From now on; what is there already counts as added."""
    files = {kind: folder / f"{kind}-{namespace}.json" for kind in ("pods", "inferencecaches")}
    with ExitStack() as stack:
        for kind, file in files.items():
            stack.enter_context(_watching(kubeconfig, namespace, kind, file))
        yield History(files)


@contextmanager
def _watching(kubeconfig: Path, namespace: str, kind: str, file: Path) -> Iterator[None]:
    command = [binaries.component("kubectl"), "get", kind, "-n", namespace, "--watch", "--output-watch-events", "-o", "json"]
    environment = {**servers.environment(), "KUBECONFIG": str(kubeconfig), "KUBECACHEDIR": str(kubeconfig.parent / "kubectl-cache")}
    with file.open("w") as told, subprocess.Popen(command, stdout=told, env=environment) as watch:
        try:
            yield
        finally:
            watch.terminate()
            watch.wait(END_SECONDS)


def _documents(text: str) -> Iterator[Any]:
    """Those that are complete."""
    decoder, at = json.JSONDecoder(), 0
    while (at := _start(text, at)) < len(text):
        try:
            document, at = decoder.raw_decode(text, at)
        except ValueError:
            return
        yield document


def _start(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def now() -> float:
    """As the traffic dates its questions: seconds since 1970."""
    return time.time()
