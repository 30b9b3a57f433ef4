"""A process that waits for a lease, tells when it has it, and obeys the lines it is sent: `check`, `release`."""

import argparse
import sys
from pathlib import Path

from inference_cache_artifacts.store import lease_files, leases
from inference_cache_artifacts.store.layout import Store


def main() -> None:
    arguments = _arguments()
    if arguments.boot:
        lease_files.boot_id = lambda: arguments.boot
    timing = leases.Timing(beat_seconds=arguments.beat, ttl_seconds=arguments.ttl)
    store = Store(Path(arguments.root))
    for _ in range(arguments.rounds):
        with leases.waiting(store, arguments.name, until=lambda: False, timing=timing) as lease:
            assert lease is not None
            if arguments.rounds == 1:
                _tell(f"held {lease.taken_over}")
                _obey(lease)
            else:
                _alone(store.root / "inside", lease)


def _obey(lease: leases.Lease) -> None:
    for line in sys.stdin:
        if line.strip() != "check":
            return
        _tell("held" if lease.is_held() else "lost")


def _alone(marker: Path, lease: leases.Lease) -> None:
    """Dies of FileExistsError where another is inside."""
    marker.touch(exist_ok=False)
    lease.check()
    marker.unlink()


def _tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("root")
    parser.add_argument("name")
    parser.add_argument("--boot", default="")
    parser.add_argument("--beat", type=float, default=2.0)
    parser.add_argument("--ttl", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
