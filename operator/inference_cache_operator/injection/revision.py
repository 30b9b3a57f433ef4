"""The fingerprint of all in a pod that changes vLLM's answers: two pods of one revision may share entries. Pure."""

import fnmatch
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from inference_cache_operator.injection import shell
from inference_cache_operator.injection.mounts import mounts

IGNORED_NAMES: Final = (
    "--api-key",
    "--cpu-offload-gb",
    "--gpu-memory-utilization",
    "--kv-cache-memory-bytes",
    "--max-num-batched-tokens",
    "--max-num-seqs",
    "--port",
    "--swap-space",
    "VLLM_API_KEY",
    "LWS_*",
)
"""Options (with the word that follows them) and variables that change no answer: port, API key, memory, batches, place in a group."""
_SERVER: Final = re.compile(r"\bvllm\s+serve\b|\bvllm\.entrypoints\.")


_PASSING: Final = ("istio-init", "istio-validation", "linkerd-init", "linkerd-network-validator")
"""Init containers of meshes: they touch no model, and another version of the mesh brings others."""


def revision(
    pod: Mapping[str, Any], container: Mapping[str, Any], version: str, artifact_digests: Iterable[str], ignored_names: Iterable[str]
) -> str:
    """16 hexadecimal digits over vLLM's container of the pod as submitted, all that its model may come from, the version and the artifacts.

    A model comes from the container itself, from what it mounts, and from what ordinary init containers do before it starts.

    `ignored_names` are patterns of options and variables that do not count; of an option that is not among IGNORED_NAMES its value
    is left out too where it is written `--name=value`: a word behind it might be the model. The order of variables does not count;
    what a variable takes from elsewhere counts by reference, not by value.
    """
    ignored = tuple(ignored_names)
    document = {
        "version": version,
        "artifacts": sorted(artifact_digests),
        **_program(pod, container, ignored),
        "before": [_program(pod, each, ignored) for each in (pod.get("spec") or {}).get("initContainers") or () if _prepares(each)],
    }
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _program(pod: Mapping[str, Any], container: Mapping[str, Any], ignored: Sequence[str]) -> dict[str, Any]:
    return {
        "image": container.get("image") or "",
        "command": _words(container, ignored),
        "entrypoint": not container.get("command"),
        "folder": container.get("workingDir") or "",
        "env": _variables(container, ignored),
        "envFrom": list(container.get("envFrom") or ()),
        "mounts": mounts(pod, container),
    }


def _prepares(container: Mapping[str, Any]) -> bool:
    """It ends before vLLM starts: sidecars of meshes and the like do not."""
    return container.get("restartPolicy") != "Always" and container.get("name") not in _PASSING


def _words(container: Mapping[str, Any], ignored: Sequence[str]) -> list[str]:
    """A shell's text is taken apart too, where it is one plain command."""
    texts = [*(container.get("command") or ()), *(container.get("args") or ())]
    return list(_without(_apart(texts), ignored))


def _apart(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        try:
            words = shell.split(text, {}) if _SERVER.search(text) else ()
        except shell.NotPlain:
            words = ()
        yield from (word.text for word in words) if len(words) > 1 else (text,)


def _without(words: Iterable[str], ignored: Sequence[str]) -> Iterator[str]:
    skip_value = False
    for word in words:
        name, equals, _ = word.partition("=")
        name = name.replace("_", "-")
        if word.startswith("--") and _matches(name, ignored):
            skip_value = not equals and name in IGNORED_NAMES
        elif skip_value and not word.startswith("--"):
            skip_value = False
        else:
            skip_value = False
            yield word


def _variables(container: Mapping[str, Any], ignored: Sequence[str]) -> dict[str, Any]:
    """The last one of a name counts, as in the container."""
    return {
        each["name"]: each.get("valueFrom") or each.get("value") or ""
        for each in container.get("env") or ()
        if not _matches(each["name"], ignored)
    }


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
