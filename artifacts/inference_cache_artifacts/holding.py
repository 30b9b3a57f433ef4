"""A folder that `fetch --to` made holds its tree: nothing that makes room takes it away while the link is there."""

import hashlib
import os
from collections.abc import Collection
from pathlib import Path
from typing import Final

from inference_cache_artifacts.pointing import point, tree_behind
from inference_cache_artifacts.store import disk, using
from inference_cache_artifacts.store.layout import Store
from inference_cache_artifacts.store.trees import Tree

_BESIDE: Final = "beside-"
_LENGTH: Final = 32


def holder_of(store: Store, target: Path) -> str:
    """The folder as a user of trees. Beside the store by its name alone: the volume may be mounted anywhere."""
    if target.parent.resolve() == store.root.parent.resolve():
        return _BESIDE + _digest(os.fsencode(target.name))
    return f"elsewhere-{_digest(os.fsencode(target))}"


def hold(store: Store, tree: Tree, target: Path) -> bool:
    """`target` is a link to the tree, which stays while it is; False: the tree was taken away meanwhile. Raises DiskFailed, NoSpace.

    Writes nothing where all is so already: the store may be mounted read-only.
    """
    holder = holder_of(store, target)
    # The link first: whoever looks for marks without a link takes this one's away.
    point(target, tree.files)
    return holder in using.users(store, tree.name) or using.use(store, tree.name, holder) is not None


def release_others(store: Store, tree: Tree, target: Path) -> None:
    """The former trees of `target`, and of folders beside the store that are gone, are nobody's any more. Raises DiskFailed."""
    own = holder_of(store, target)
    marks = [(name, holder) for name in disk.listed(store.used) for holder in using.users(store, name)]
    # After the marks: a link comes before its mark.
    linked = _beside(store)
    for name, holder in marks:
        is_former = holder == own and name != tree.name
        if is_former or (holder.startswith(_BESIDE) and linked.get(holder) != name):
            using.release(store, name, holder)


def hold_alone(store: Store, tree: Tree, holder: str, also: Collection[str]) -> bool:
    """`holder` uses this tree, those of `also`, and no others any more; False: the tree was taken away meanwhile.

    Writes nothing where all is so already. Raises DiskFailed, NoSpace.
    """
    if holder not in using.users(store, tree.name) and using.use(store, tree.name, holder) is None:
        return False
    since = using.marked_at(store, tree.name, holder)
    for name in disk.listed(store.used):
        # A younger mark is that of a later version: this may be an old pod that kubelet has started again.
        if name != tree.name and name not in also and using.marked_at(store, name, holder) < since:
            using.release(store, name, holder)
    return True


def _beside(store: Store) -> dict[str, str | None]:
    """Tree by holder, of all links that lie beside the store."""
    links = [each for each in store.root.parent.iterdir() if each.is_symlink()]
    return {_BESIDE + _digest(os.fsencode(each.name)): tree_behind(each) for each in links}


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:_LENGTH]
