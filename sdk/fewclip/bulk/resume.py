"""Which records of a source have a row already. It keeps no list while the order is the same."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Container, Iterable, Iterator

from fewclip.bulk.records import Record, Shard, failed
from fewclip.errors import DataError


class Done:
    """Compares the records of a source, in order, with the images that have a row.

    An interrupted run leaves the rows of the first records in the same order, so both are walked
    in step and nothing needs to be remembered. Once they differ (files were added or removed in
    between), the remaining done images are counted by name, at about 150 bytes each.

    Args:
        images: those that have a row, in the order of the rows.
    """

    def __init__(self, images: Iterator[str]) -> None:
        self._images = images
        self._next = next(images, None)
        self._counts: Counter[str] | None = None

    @property
    def used_up(self) -> bool:
        """Whether every done image has been seen; all records from here on are new."""
        return self._next is None if self._counts is None else not self._counts

    def holds(self, name: str) -> bool:
        """Whether this record, the next of the source, is done."""
        if self.used_up:
            return False
        if self._counts is None and name == self._next:
            self._next = next(self._images, None)
            return True
        if self._counts is None:
            self._counts = Counter(self._images)
            self._counts[self._next or ""] += 1
        if name not in self._counts:
            return False
        self._counts[name] -= 1
        if not self._counts[name]:
            del self._counts[name]
        return True


@dataclasses.dataclass(frozen=True)
class Pending:
    """The records of a shard that have no row yet; can be sent to another process.

    Attributes:
        skip: positions of records that are done.
        break_is_done: the shard broke off in an earlier run, and that error has a row.
    """

    shard: Shard
    skip: Container[int] = ()
    break_is_done: bool = False

    def records(self) -> Iterator[Record]:
        """If the shard breaks off, one more record fails with the reason."""
        try:
            for position, record in enumerate(self.shard.records()):
                if position not in self.skip:
                    yield record
        except (DataError, OSError) as error:
            if not self.break_is_done:
                yield failed(self.shard.name, error)


def pending(shards: Iterable[Shard], done: Done) -> Iterator[Pending]:
    """What is left to do, in order. For what is done, only names are read."""
    for shard in shards:
        if done.used_up:
            yield Pending(shard)
            continue
        left = _compared(shard, done)
        if left is not None:
            yield left


def _compared(shard: Shard, done: Done) -> Pending | None:
    skip: list[int] = []
    count, breaks = 0, False
    try:
        for record in shard.records(names_only=True):
            if done.holds(record.name):
                skip.append(count)
            count += 1
    except (DataError, OSError):
        breaks = True
    if len(skip) == count and not breaks:
        return None
    break_is_done = done.holds(shard.name)
    if len(skip) == count and break_is_done:
        return None
    # After an interrupted run it is the first records that are done, and a range costs nothing.
    is_beginning = not skip or skip[-1] == len(skip) - 1
    return Pending(shard, range(len(skip)) if is_beginning else frozenset(skip), break_is_done)
