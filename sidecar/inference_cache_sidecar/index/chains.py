"""A hash table that keeps no keys: eight bytes an item, and it grows without a pause.

The slab, the regions and the memory store number their items and hold the keys themselves; this only says which items
may have a key. Linear hashing (Litwin, VLDB 1980): each insert past the load splits one bucket, so nothing is ever
rehashed at once as a dict of a million keys would be.
"""

from array import array
from collections.abc import Callable
from sys import getsizeof
from typing import Final

NONE: Final = 0xFFFFFFFF
"""The end of a chain."""


class Chains:
    """Buckets of item numbers; `links[item]` is the next item of the chain. Several tables may share `links`."""

    def __init__(self, links: "array[int]", hash_of: Callable[[int], int]) -> None:
        """`hash_of(item)` gives the hash of an item's key again when its bucket is split."""
        self._links = links
        self._hash_of = hash_of
        self._heads = array("I", [NONE] * 8)
        self._mask = 7
        self._split = 0
        self._items = 0

    def __len__(self) -> int:
        return self._items

    @property
    def nbytes(self) -> int:
        return getsizeof(self._heads)

    def first(self, key_hash: int) -> int:
        """The first item whose key may have this hash; the caller follows `links` until NONE."""
        bucket = key_hash & self._mask
        if bucket < self._split:
            bucket = key_hash & (2 * self._mask + 1)
        return self._heads[bucket]

    def insert(self, key_hash: int, item: int) -> None:
        bucket = self._bucket(key_hash)
        self._links[item] = self._heads[bucket]
        self._heads[bucket] = item
        self._items += 1
        if self._items > len(self._heads):
            self._split_next()

    def remove(self, key_hash: int, item: int) -> None:
        """Take out an item that is in the table."""
        bucket = self._bucket(key_hash)
        links = self._links
        at = self._heads[bucket]
        if at == item:
            self._heads[bucket] = links[item]
        else:
            while links[at] != item:
                at = links[at]
            links[at] = links[item]
        self._items -= 1

    def _bucket(self, key_hash: int) -> int:
        bucket = key_hash & self._mask
        return key_hash & (2 * self._mask + 1) if bucket < self._split else bucket

    def _split_next(self) -> None:
        """Share the items of the oldest unsplit bucket between it and a new one."""
        old, new = self._split, len(self._heads)
        item = self._heads[old]
        self._heads[old] = NONE
        self._heads.append(NONE)
        wide = 2 * self._mask + 1
        self._split += 1
        if self._split > self._mask:
            self._mask, self._split = wide, 0
        while item != NONE:
            following = self._links[item]
            bucket = new if self._hash_of(item) & wide == new else old
            self._links[item] = self._heads[bucket]
            self._heads[bucket] = item
            item = following
