"""An immutable mapping of which a changed copy is cheap."""

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

V = TypeVar("V")

_SHARDS = 1024  # 100,000 entries make shards of about a hundred
_MASK = _SHARDS - 1
_EMPTY: tuple[Mapping[str, object], ...] = ({},) * _SHARDS


class Catalog(Generic[V]):
    """An immutable mapping from text; a copy with some changes shares everything but the shards they fall into."""

    __slots__ = ("_shards",)
    _shards: tuple[Mapping[str, V], ...]

    def __init__(self) -> None:
        self._shards = _EMPTY  # type: ignore[assignment]  # empty mappings hold values of any type

    def find(self, key: str) -> V | None:
        """Return the value of `key`, or None."""
        return self._shards[hash(key) & _MASK].get(key)

    def ids(self) -> Iterator[str]:
        """Yield every key, in no particular order."""
        for shard in self._shards:
            yield from shard

    def values(self) -> Iterator[V]:
        """Yield every value, in no particular order."""
        for shard in self._shards:
            yield from shard.values()

    def with_changes(self, changes: Mapping[str, V | None]) -> "Catalog[V]":
        """Return a catalog with these values instead; None takes a key out."""
        if not changes:
            return self
        copied: dict[int, dict[str, V]] = {}
        for key, value in changes.items():
            index = hash(key) & _MASK
            shard = copied.get(index)
            if shard is None:
                shard = copied[index] = dict(self._shards[index])
            if value is None:
                shard.pop(key, None)
            else:
                shard[key] = value
        shards = list(self._shards)
        for index, shard in copied.items():
            shards[index] = shard
        changed: Catalog[V] = Catalog()
        changed._shards = tuple(shards)
        return changed
