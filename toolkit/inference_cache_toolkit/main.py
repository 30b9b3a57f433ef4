"""The one console script, `inference-cache SUBCOMMAND …`: finds the subcommand's module and imports only that."""

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Final


@dataclass(frozen=True, slots=True)
class Subcommand:
    """`module` has `main(arguments) -> int`."""

    module: str
    summary: str


SUBCOMMANDS: Final = {
    "sidecar": Subcommand("inference_cache_sidecar.command", "put the cache in front of an OpenAI-compatible server"),
    "operator": Subcommand("inference_cache_operator.command", "keep the resources of a cluster, their pods and versions in order"),
    "webhook": Subcommand("inference_cache_operator.webhook_command", "inject sidecars into the pods that resources select"),
    "flush": Subcommand("inference_cache_toolkit.flush.command", "make stored answers unreachable on all replicas, and delete them"),
    "fetch": Subcommand("inference_cache_artifacts.command", "bring model files here, verified, and resume where it stopped"),
    "agent": Subcommand("inference_cache_artifacts.agent.command", "keep the model files of a node, fetched once for all of its pods"),
    "manifest": Subcommand("inference_cache_artifacts.manifest_command", "write down what an artifact's files are: path, size, SHA-256"),
    "demo": Subcommand("inference_cache_toolkit.demo.command", "show it at work: questions, repeats, rephrasings, opposites"),
    "standin": Subcommand("inference_cache_toolkit.standin.command", "a stand-in for vLLM, to try the cache without a model"),
    "embedding-model": Subcommand("inference_cache_toolkit.embedding_model", "make the embedding model's files"),
}

_USAGE_ERROR: Final = 2


def usage() -> str:
    width = max(map(len, SUBCOMMANDS))
    lines = [f"  {name:<{width}}  {subcommand.summary}" for name, subcommand in SUBCOMMANDS.items()]
    return "\n".join(["usage: inference-cache SUBCOMMAND [--help] …", "       inference-cache --version", "", *lines])


def _end_when_told() -> None:
    """A container's first process ignores a signal that it does not handle: a pod deleted while this starts would live out its grace."""
    signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; the exit status."""
    if os.getpid() == 1:
        _end_when_told()
    asked = list(sys.argv[1:] if arguments is None else arguments)
    if not asked or asked[0] in {"-h", "--help", "help"}:
        print(usage())
        return 0 if asked else _USAGE_ERROR
    if asked[0] == "--version":
        # Only here: it takes longer to load than a warm `fetch` takes.
        from importlib.metadata import version  # noqa: PLC0415

        print(version("inference-cache"))
        return 0
    subcommand = SUBCOMMANDS.get(asked[0])
    if subcommand is None:
        print(f"inference-cache: there is no subcommand {asked[0]!r}{_hint(asked[0])}\n\n{usage()}", file=sys.stderr)
        return _USAGE_ERROR
    run = import_module(subcommand.module).main
    return int(run(asked[1:]) or 0)


def _hint(asked: str) -> str:
    import difflib  # noqa: PLC0415 - only where somebody mistyped

    near = difflib.get_close_matches(asked, SUBCOMMANDS, 1)
    return f"; did you mean {near[0]}?" if near else ""
