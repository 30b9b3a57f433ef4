"""What replicas hold to when they share flights. All of a cache's replicas should use the same; tests shorten them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Terms:
    lease_seconds: float = 3.0
    """A holder that is not heard of for so long is gone."""
    renew_seconds: float = 1.0
    """Between two renewals by the holder, and twice between two signs that somebody waits."""
    look_seconds: float = 0.05
    """Between two looks of a holder at whether anybody waits: before that it writes nothing."""
    pace_seconds: float = 0.02
    """Least time between two records; the first goes out at once."""
    record_bytes: int = 64 * 1024
    """A record takes no more parts than that, but at least one."""
    records: int = 65_536
    """Kept of one stream while others may join."""
    window_records: int = 256
    """Kept of a stream that has outgrown the limit of a flight."""
    stream_seconds: float = 60.0
    """How long a stream is kept after its last sign of life."""
    ended_seconds: float = 10.0
    """How long it is known that a flight has ended: whoever looked for its answer before looks again."""
    block_seconds: float = 0.2
    """Of one waiting read: a server that hangs is noticed that much later."""
    slack_seconds: float = 0.5
    """That a waiting read may take longer than it was to wait."""
    followed: int = 32
    """Flights of others that a replica follows at once; each takes a connection. Beyond that it asks upstream itself."""
    retries: int = 3
    """Holders in a row that may go before an answer, until a replica asks by itself."""
    hiccup_seconds: float = 0.25
    """How long the store may fail until who follows, and was told nothing yet, asks upstream itself."""
    patience_seconds: float = 30.0
    """How long it may fail while an answer is being handed on, which nobody else can go on with."""
    retry_seconds: float = 0.05
    """Between attempts at a store that fails while something depends on it."""
