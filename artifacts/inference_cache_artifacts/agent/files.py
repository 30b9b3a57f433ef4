"""Hands on the files of a tree: sent by the kernel from disk to socket. What is there is what the manifest names, nothing else."""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from aiohttp import web

from inference_cache_artifacts.agent.parts import Part, part_of
from inference_cache_artifacts.agent.sending import send
from inference_cache_artifacts.errors import Missing
from inference_cache_artifacts.manifest import File
from inference_cache_artifacts.store import trees
from inference_cache_artifacts.store.layout import Store
from inference_cache_artifacts.store.trees import Tree

_MOST_KEPT: Final = 16
_MOST_FILES_KEPT: Final = 200_000
"""Of all of them together, but for the last one."""
_AT_A_TIME: Final = 2
"""A large manifest takes ten times its length while it is read."""


class Files:
    """Remembers the manifests of the trees that were asked for last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Path, str], Mapping[str, File]] = OrderedDict()
        self._reading = asyncio.Semaphore(_AT_A_TIME)

    async def tree(self, store: Store, name: str) -> Tree:
        """Raises Missing, DiskFailed."""
        return await asyncio.to_thread(_found, store, name)

    async def manifest(self, store: Store, name: str) -> str:
        """Its text. Raises Missing, DiskFailed, BadManifest."""
        tree = await self.tree(store, name)
        async with self._reading:
            return await asyncio.to_thread(lambda: tree.manifest().text())

    async def answer(self, request: web.Request, store: Store, name: str, path: str) -> web.StreamResponse:
        """To GET and HEAD. Raises Missing, DiskFailed."""
        tree = await self.tree(store, name)
        file = (await self._by_path(tree)).get(path)
        if file is None:
            raise Missing("the tree has no such file", path)
        part = part_of(request.headers, f'"{file.sha256}"', file.size)
        answer = _answer(part, file)
        if request.method == "HEAD" or part.start == part.end:
            return answer
        await send(request, answer, tree.files / file.path, part)
        return answer

    async def _by_path(self, tree: Tree) -> Mapping[str, File]:
        key = (tree.files, tree.digest)
        if key not in self._kept:
            async with self._reading:
                if key not in self._kept:
                    self._kept[key] = await asyncio.to_thread(_files_of, tree)
        self._kept.move_to_end(key)
        while len(self._kept) > _MOST_KEPT or (len(self._kept) > 1 and sum(map(len, self._kept.values())) > _MOST_FILES_KEPT):
            self._kept.popitem(last=False)
        return self._kept[key]


def _files_of(tree: Tree) -> Mapping[str, File]:
    return {file.path: file for file in tree.manifest().files}


def _found(store: Store, name: str) -> Tree:
    tree = trees.find(store, name)
    if tree is None:
        raise Missing("the tree is not on this node")
    return tree


def _answer(part: Part, file: File) -> web.StreamResponse:
    answer = web.StreamResponse(status=part.status, headers={"ETag": f'"{file.sha256}"', "Accept-Ranges": "bytes"})
    answer.content_type = "application/octet-stream"
    if part.status != 304:
        answer.content_length = part.end - part.start
    if part.content_range is not None:
        answer.headers["Content-Range"] = part.content_range
    return answer
