"""`inference-cache fetch`: reads the command line, has files fetched, and makes the folder a link to them. Called by the console script.

What is there already must cost next to nothing: nothing that speaks to a source is imported here.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from inference_cache_artifacts.counting import Counted
from inference_cache_artifacts.credentials import read_credentials
from inference_cache_artifacts.displays import displays
from inference_cache_artifacts.ending import Ended, endings, tell
from inference_cache_artifacts.errors import NoSpace
from inference_cache_artifacts.fetching import fetch as bring
from inference_cache_artifacts.flags import FETCH, fetch_parser
from inference_cache_artifacts.handover.contact import Contact
from inference_cache_artifacts.handover.delivering import Delivery, Fetch
from inference_cache_artifacts.holding import hold, hold_alone, release_others
from inference_cache_artifacts.interrupting import interruptible
from inference_cache_artifacts.manifest_files import given_manifest
from inference_cache_artifacts.pointing import check_target, default_store, tree_behind
from inference_cache_artifacts.progress import Outcome, Progress
from inference_cache_artifacts.request import Limits, Request
from inference_cache_artifacts.sources.options import SourceOptions
from inference_cache_artifacts.store.layout import Store
from inference_cache_artifacts.store.trees import Tree

_ATTEMPTS: Final = 5


def main(arguments: Sequence[str] | None = None, fetch: Fetch = bring) -> int:
    """Fetch, or check what is there; the exit status."""
    made = fetch_parser()
    asked = made.parse_args(arguments)
    _check_together(made, asked)
    shown = displays(FETCH, quiet=asked.quiet, as_json=asked.json, status_file=asked.progress_file)
    with Counted(shown) as progress:
        try:
            with endings(), interruptible():
                outcome = _checked(asked, progress) if asked.check else _fetched(asked, fetch, progress)
        except Ended as ended:
            progress.ended(ended.outcome)
            tell(FETCH, ended.outcome, asked.termination_message)
            return ended.status
        # An edge: it goes on its way, and the pod says more of it than that a container failed.
        except Exception as error:
            outcome = Outcome("Failed", None, f"inference-cache has a fault ({type(error).__name__}); the log has more")
            tell(FETCH, outcome, asked.termination_message)
            progress.ended(outcome)
            raise
        progress.ended(outcome)
    return 0


def _check_together(made: argparse.ArgumentParser, asked: argparse.Namespace) -> None:
    wrong = (
        (not asked.sources and not asked.check, "SOURCE is required, but with --check"),
        ((asked.agent is None) != (asked.agent_token is None), "--agent and --agent-token need each other"),
        (asked.agent is not None and asked.holder is None, "--agent needs --holder"),
        (asked.node_only and asked.agent is None, "--node-only needs --agent"),
        ((asked.to is None) == (asked.holder is None), "either --to is required, or --holder with --store"),
        (asked.holder is not None and asked.check, "nothing is checked with --holder"),
        (asked.holder is not None and asked.store is None and not asked.node_only, "--holder needs --store, but with --node-only"),
    )
    for _, message in (each for each in wrong if each[0]):
        made.error(message)


def request_of(asked: argparse.Namespace) -> Request:
    """Raises BadRequest, BadManifest."""
    credentials = {} if asked.credentials_dir is None else read_credentials(asked.credentials_dir)
    ca_file = None if asked.ca_file is None else str(asked.ca_file)
    behind = None if asked.to is None else tree_behind(asked.to)
    return Request(
        sources=tuple(asked.sources),
        version=asked.version,
        manifest=None if asked.manifest is None else given_manifest(asked.manifest),
        manifest_sha256=asked.manifest_sha256 or "",
        verify=asked.verify == "Required",
        options=SourceOptions(credentials, ca_file=ca_file, plain_http=asked.plain_http),
        limits=Limits(asked.limit_rate, asked.connections, asked.reserve, asked.timeout),
        keep=frozenset(asked.keep) | ({behind} if behind else set()),
    )


def _fetched(asked: argparse.Namespace, fetch: Fetch, progress: Progress) -> Outcome:
    if asked.node_only:
        return _delivery(asked).to_node(request_of(asked), None if asked.store is None else Store(asked.store), progress)
    if asked.to is None:
        return _kept(asked, fetch, progress)
    check_target(asked.to)
    return _linked(asked, fetch, progress)


def _kept(asked: argparse.Namespace, fetch: Fetch, progress: Progress) -> Outcome:
    request, store = request_of(asked), Store(asked.store)

    def brought() -> Tree:
        return fetch(request, store, progress) if asked.agent is None else _delivery(asked).to_pod(request, store, progress, fetch)

    tree = _held(brought, lambda tree: hold_alone(store, tree, asked.holder, request.keep))
    return Outcome(tree=tree.name, path=str(tree.files))


def _delivery(asked: argparse.Namespace) -> Delivery:
    return Delivery(Contact(asked.agent, asked.agent_token), asked.holder)


def _linked(asked: argparse.Namespace, fetch: Fetch, progress: Progress) -> Outcome:
    request, store, former = request_of(asked), Store(asked.store or default_store(asked.to)), tree_behind(asked.to)
    tree = _held(lambda: fetch(request, store, progress), lambda tree: hold(store, tree, asked.to))
    if former != tree.name:
        release_others(store, tree, asked.to)
    return Outcome(tree=tree.name, path=str(asked.to))


def _held(fetch: Callable[[], Tree], hold: Callable[[Tree], bool]) -> Tree:
    for _ in range(_ATTEMPTS):
        tree = fetch()
        if hold(tree):
            return tree
    raise NoSpace(f"{tree.files}: is removed again and again to make room for others")


def _checked(asked: argparse.Namespace, progress: Progress) -> Outcome:
    # Late: hashing is what a warm start does not do.
    from inference_cache_artifacts.checking import checked  # noqa: PLC0415

    return checked(asked.to, None if asked.manifest is None else Path(asked.manifest), progress)
