"""One fetch by way of the agent: who is asked for what, and when the sources are asked after all. Called by `delivering`."""

from contextlib import closing
from dataclasses import replace
from typing import Final

from inference_cache_artifacts.errors import (
    ArtifactError,
    BadManifest,
    BadRequest,
    Changed,
    Corrupt,
    Forbidden,
    Missing,
    TimedOut,
    Unreachable,
    Unverifiable,
)
from inference_cache_artifacts.handover.asking import Asking, Declined
from inference_cache_artifacts.handover.client import Away, Client, Gone, Refused
from inference_cache_artifacts.handover.contact import Contact
from inference_cache_artifacts.handover.copying import Copying
from inference_cache_artifacts.handover.delivering import Fetch
from inference_cache_artifacts.handover.patience import AWAY_SECONDS, Deadline, Patience
from inference_cache_artifacts.handover.showing import Followed
from inference_cache_artifacts.progress import Progress
from inference_cache_artifacts.request import Request
from inference_cache_artifacts.store.layout import Store
from inference_cache_artifacts.store.trees import Tree

OF_THE_SOURCES: Final = (BadManifest, BadRequest, Changed, Corrupt, Forbidden, Missing, TimedOut, Unreachable, Unverifiable)
"""Would be the same without an agent; all else that it fails with is trouble of its own."""
OF_THE_AGENT: Final = (BadManifest, BadRequest, Changed, Corrupt, Forbidden, Missing, Unreachable, Unverifiable)
"""Of what it hands on: the sources may have it better."""
OWN_CONNECTIONS: Final = 3
"""Beside those that carry files: for the next job, for how far it is, and one to spare."""


def on_node(contact: Contact, holder: str, request: Request, progress: Progress) -> None:
    """Returns when the agent has the tree, however long it is away. Raises ArtifactError."""
    deadline = Deadline(request.limits.timeout_seconds)
    with closing(_client(contact, request)) as client:
        Asking(client, request, holder, Followed(progress), deadline, Patience(deadline, progress, None)).ask()


class Handing:
    """Into a store of the pod's own."""

    def __init__(self, contact: Contact, holder: str, request: Request, progress: Progress) -> None:
        self._contact = contact
        self._holder = holder
        self._request = request
        self._progress = Followed(progress)
        self._deadline = Deadline(request.limits.timeout_seconds)

    def bring(self, store: Store, direct: Fetch) -> Tree:
        """Raises ArtifactError."""
        try:
            with closing(_client(self._contact, self._request)) as client:
                self._ask(client)
                return self._copied(client, store)
        except Away as error:
            self._progress.noted("agent-away", why=str(error))
        self._deadline.check("there is no time left to ask the sources")
        return direct(self._within_time(self._request), store, self._progress)

    def _ask(self, client: Client) -> None:
        """Raises Away, and what the sources are to blame for."""
        patience = Patience(self._deadline, self._progress, AWAY_SECONDS)
        try:
            Asking(client, self._request, self._holder, self._progress, self._deadline, patience).ask()
        except (Declined, Refused) as error:
            raise Away(str(error)) from None
        except OF_THE_SOURCES:
            raise
        except ArtifactError as error:
            raise Away(f"the agent failed: {error.reason}: {error}") from None

    def _copied(self, client: Client, store: Store) -> Tree:
        """Raises Away, ArtifactError."""
        name = self._request.tree_name
        try:
            manifest = client.manifest(name)
            request = replace(self._request, name=name)
            return Copying(self._contact, request, manifest, store, self._progress, self._deadline).copy()
        except Gone as error:
            raise Away(str(error)) from None
        except OF_THE_AGENT as error:
            raise Away(f"what the agent has cannot be used: {error.reason}: {error}") from None

    def _within_time(self, request: Request) -> Request:
        return replace(request, limits=replace(request.limits, timeout_seconds=self._deadline.left_seconds))


def _client(contact: Contact, request: Request) -> Client:
    return Client(contact, request.limits.connections + OWN_CONNECTIONS)
