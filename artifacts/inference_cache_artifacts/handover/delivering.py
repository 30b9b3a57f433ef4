"""`fetch --agent`: a tree by way of the node's agent, which fetches it once for all pods of its node. Called by `command`.

Loads nothing that speaks to anybody until there is something to ask for: what is there already must cost next to nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass

from inference_cache_artifacts.errors import DiskFailed
from inference_cache_artifacts.handover.contact import Contact
from inference_cache_artifacts.progress import Outcome, Progress
from inference_cache_artifacts.request import Request
from inference_cache_artifacts.store import trees
from inference_cache_artifacts.store.layout import Store
from inference_cache_artifacts.store.trees import Tree

Fetch = Callable[[Request, Store, Progress], Tree]


@dataclass(frozen=True, slots=True)
class Delivery:
    contact: Contact
    holder: str

    def to_node(self, request: Request, store: Store | None, progress: Progress) -> Outcome:
        """The agent has the tree. `store` is its own, seen from here, so that what is there is not asked for; nothing is written to it.

        Waits for an agent that is away. Raises ArtifactError.
        """
        name = request.tree_name
        if store is not None and (found := trees.find(store, name)) is not None:
            return Outcome(tree=name, path=str(found.files))
        from inference_cache_artifacts.handover.handing import on_node  # noqa: PLC0415 - see above

        on_node(self.contact, self.holder, request, progress)
        return Outcome(tree=name, path="" if store is None else str(_seen(store, name).files))

    def to_pod(self, request: Request, store: Store, progress: Progress, direct: Fetch) -> Tree:
        """The tree in a store of the pod's own, from the agent's; by `direct` where the agent is away or in trouble.

        Raises ArtifactError.
        """
        found = trees.find(store, request.tree_name)
        if found is not None:
            return found
        from inference_cache_artifacts.handover.handing import Handing  # noqa: PLC0415 - see above

        return Handing(self.contact, self.holder, request, progress).bring(store, direct)


def _seen(store: Store, name: str) -> Tree:
    found = trees.find(store, name)
    if found is None:
        raise DiskFailed(f"{store.tree(name)} is not there, and the agent has it: --store is not the folder that the agent keeps")
    return found
