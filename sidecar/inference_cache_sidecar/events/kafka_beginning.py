"""Where a consumer group begins that is made anew with each process: with what was written since that started. `kafka` sets it up.

A replica without a shared store starts with nothing stored: older events concern none of its answers, and there may be weeks of them.
"""

from collections.abc import Collection
from types import ModuleType
from typing import Any, Final

DRIFT_SECONDS: Final = 60.0
"""How far a producer's clock, which dates an event, may be behind this one."""


def beginning(aiokafka: ModuleType, consumer: Any, since_seconds: float) -> Any:
    """As aiokafka's `subscribe` takes it. What goes wrong there is logged, and the partitions are then read from their beginning."""

    class Beginning(aiokafka.ConsumerRebalanceListener):  # type: ignore[misc, name-defined]  # imported where it is used
        async def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
            return

        async def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
            new = [partition for partition in assigned if await consumer.committed(partition) is None]
            if not new:
                return
            # Asked for first: what is written meanwhile is read.
            ends = await consumer.end_offsets(new)
            found = await consumer.offsets_for_times(dict.fromkeys(new, int((since_seconds - DRIFT_SECONDS) * 1000)))
            for partition in new:
                first = found.get(partition)
                consumer.seek(partition, ends[partition] if first is None else first.offset)

    return Beginning()
