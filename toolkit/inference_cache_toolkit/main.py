"""The one console script, `inference-cache SUBCOMMAND …`: finds the subcommand's module and imports only that."""

import difflib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Final


@dataclass(frozen=True, slots=True)
class Subcommand:
    """`module` has `main(arguments) -> int`."""

    module: str
    summary: str


SUBCOMMANDS: Final = {
    "sidecar": Subcommand("inference_cache_sidecar.command", "put the cache in front of an OpenAI-compatible server"),
    "flush": Subcommand("inference_cache_toolkit.flush.command", "make stored answers unreachable on all replicas, and delete them"),
    "demo": Subcommand("inference_cache_toolkit.demo.command", "show it at work: questions, repeats, rephrasings, opposites"),
    "standin": Subcommand("inference_cache_toolkit.standin.command", "a stand-in for vLLM, to try the cache without a model"),
    "embedding-model": Subcommand("inference_cache_toolkit.embedding_model", "make the embedding model's files"),
}

_USAGE_ERROR: Final = 2


def usage() -> str:
    width = max(map(len, SUBCOMMANDS))
    lines = [f"  {name:<{width}}  {subcommand.summary}" for name, subcommand in SUBCOMMANDS.items()]
    return "\n".join(["usage: inference-cache SUBCOMMAND [--help] …", "       inference-cache --version", "", *lines])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; the exit status."""
    asked = list(sys.argv[1:] if arguments is None else arguments)
    if not asked or asked[0] in {"-h", "--help", "help"}:
        print(usage())
        return 0 if asked else _USAGE_ERROR
    if asked[0] == "--version":
        print(version("inference-cache"))
        return 0
    subcommand = SUBCOMMANDS.get(asked[0])
    if subcommand is None:
        near = difflib.get_close_matches(asked[0], SUBCOMMANDS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        print(f"inference-cache: there is no subcommand {asked[0]!r}{hint}\n\n{usage()}", file=sys.stderr)
        return _USAGE_ERROR
    run = import_module(subcommand.module).main
    return int(run(asked[1:]) or 0)
