"""The resources as the watch and the lists told them last, and how far the watch is behind."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from inference_cache_operator.resource import Resource, read_resource

Key = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True, slots=True)
class _Seen:
    resource: Resource
    watched: bool
    """The watch itself delivered this generation."""


class Index:
    def __init__(self) -> None:
        self._seen: dict[Key, _Seen] = {}

    def in_namespace(self, namespace: str) -> list[Resource]:
        return [each.resource for (where, _), each in self._seen.items() if where == namespace]

    def resources(self) -> list[Resource]:
        return [each.resource for each in self._seen.values()]

    def all_keys(self) -> list[Key]:
        return list(self._seen)

    def watched(self, body: Mapping[str, Any], deleted: bool) -> Key | None:
        """Takes an event in; returns the key if it says more than that we wrote a status."""
        resource = read_resource(body)
        key = (resource.namespace, resource.name)
        before = self._seen.get(key)
        if deleted:
            self._seen.pop(key, None)
            return key
        self._seen[key] = _Seen(resource, watched=True)
        return None if before is not None and before.watched and _same(before.resource, resource) else key

    def listed(self, bodies: Iterable[Mapping[str, Any]]) -> tuple[list[Key], list[Key]]:
        """Takes a full list in; returns the keys that the watch has told otherwise, and those that are gone."""
        now = {(each.namespace, each.name): each for each in map(read_resource, bodies)}
        gone = [key for key in self._seen if key not in now]
        for key in gone:
            del self._seen[key]
        unknown = [key for key, each in now.items() if key not in self._seen or not self._tells(key, each)]
        for key, each in now.items():
            self._seen[key] = _Seen(each, watched=key not in unknown)
        return unknown, gone

    def _tells(self, key: Key, listed: Resource) -> bool:
        seen = self._seen[key]
        return seen.watched and seen.resource.uid == listed.uid and seen.resource.generation >= listed.generation


def _same(before: Resource, after: Resource) -> bool:
    return (before.uid, before.generation, before.deleting, before.flush_requested) == (
        after.uid,
        after.generation,
        after.deleting,
        after.flush_requested,
    )
