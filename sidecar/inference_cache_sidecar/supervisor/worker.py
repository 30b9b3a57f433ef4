"""A supervised worker's first lines: `python -m inference_cache_sidecar.supervisor.worker ARGUMENTS`. `workers` starts it."""

import ctypes
import os
import signal
import sys

from inference_cache_sidecar.supervisor.inheritance import INHERITED_VARIABLE, parse_inherited

_SET_PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


def die_with_supervisor() -> None:
    """A worker without one would hold the sockets, and nobody would restart it: the kernel ends it with its supervisor."""
    inherited = parse_inherited(os.environ.get(INHERITED_VARIABLE, ""))
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if inherited is not None and os.getppid() != inherited.supervisor:
        sys.exit(1)


if __name__ == "__main__":
    die_with_supervisor()
    from inference_cache_sidecar.command import main

    sys.exit(main(sys.argv[1:]))
