"""Has the agent of the node fetch a tree, and does for it what only this pod can: reading the sources. Called by `delivering`."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Final

from inference_cache_artifacts.errors import ArtifactError, BadManifest, BadRequest
from inference_cache_artifacts.handover.client import Away, Client, Gone
from inference_cache_artifacts.handover.failures import error_of
from inference_cache_artifacts.handover.patience import Deadline, Patience
from inference_cache_artifacts.handover.protocol import ABANDONED, Ask, Failure
from inference_cache_artifacts.handover.relaying import Relay
from inference_cache_artifacts.handover.showing import Followed
from inference_cache_artifacts.names import naming_url
from inference_cache_artifacts.request import Request
from inference_cache_artifacts.source import Source
from inference_cache_artifacts.sources.opening import open_source

POLL_SECONDS: Final = 1.0


class Declined(BadRequest):
    """By the agent itself, as by one of another version; it says nothing of the sources."""


def ask_of(request: Request, holder: str) -> Ask:
    """Nothing of the pod's own is in it: no credential, no signature, no limit. Raises BadRequest."""
    return Ask(
        sources=tuple(map(naming_url, request.sources)),
        tree=request.tree_name,
        version=request.version,
        manifest=request.manifest,
        manifest_sha256=request.manifest_sha256,
        verify=request.verify,
        holder=holder,
        keep=tuple(sorted(request.keep)),
    )


class Asking:
    """One tree, asked for until it is there."""

    def __init__(self, client: Client, request: Request, holder: str, progress: Followed, deadline: Deadline, patience: Patience) -> None:
        self._client = client
        self._request = request
        self._ask = ask_of(request, holder)
        self._progress = progress
        self._deadline = deadline
        self._patience = patience

    def ask(self) -> None:
        """Returns when the agent has the tree. Raises Away, Declined, ArtifactError."""
        with ExitStack() as stack:
            sources = [stack.enter_context(closing(open_source(url, self._request.options))) for url in self._request.sources]
            while not self._asked_once(sources):
                self._deadline.check("the agent does not have it yet")

    def _asked_once(self, sources: Sequence[Source]) -> bool:
        """False: the agent has been away, or is another one now."""
        try:
            fetch = self._client.ask(self._ask)
        except Away as error:
            self._patience.wait(error)
            return False
        except Gone as error:
            self._patience.wait(Away(f"{error}, as nothing does that is an agent"))
            return False
        except (BadManifest, BadRequest) as error:
            raise Declined(f"the agent does not take what it is asked for: {error}", error.file) from None
        if not isinstance(fetch, str):
            return True
        return self._relayed(fetch, sources)

    def _relayed(self, fetch: str, sources: Sequence[Source]) -> bool:
        self._progress.begin()
        limits = self._request.limits
        relay = Relay(self._client, fetch, sources, limits.bytes_per_second)
        with ExitStack() as stack:
            stack.callback(relay.end)
            stack.enter_context(self._left_early(fetch))
            relay.begin(limits.connections + 1)
            return self._followed(fetch, relay)

    @contextmanager
    def _left_early(self, fetch: str) -> Iterator[None]:
        """The agent is told where this pod ends what the agent has not."""
        try:
            yield
        except _Ended as ended:
            raise ended.error from None
        except BaseException:
            self._client.leave(fetch)
            raise

    def _followed(self, fetch: str, relay: Relay) -> bool:
        """As `_asked_once`. Raises what went wrong in the relay, too."""
        while True:
            try:
                standing = self._client.standing(fetch)
            except Away as error:
                self._patience.wait(error)
                continue
            except Gone as error:
                # Restarted, it knows nothing of what was asked before.
                self._patience.wait(Away(str(error)))
                return False
            self._patience.well()
            self._progress.show(standing.progress)
            if standing.state == "done":
                return True
            if standing.state == "failed":
                return self._judged(standing.failure or Failure("Failed", "the agent does not say why"))
            relay.wait(POLL_SECONDS)
            self._deadline.check("the agent does not have it yet")

    def _judged(self, failure: Failure) -> bool:
        if failure.reason == ABANDONED:
            self._patience.wait(Away(failure.message))
            return False
        raise _Ended(error_of(failure))


class _Ended(Exception):
    """The agent's fetch has failed; never leaves this module."""

    def __init__(self, error: ArtifactError) -> None:
        super().__init__(str(error))
        self.error = error
