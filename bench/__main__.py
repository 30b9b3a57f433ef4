"""Every measurement in turn: the serving bench, then the others in short form.

    make bench [ARGS="--quick"] [ARGS="--save"]

Each is a process of its own, so that none inherits another's memory. Ends with status 1 if one did.
"""

import subprocess
import sys
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
SHORT: Final = (
    ("store_memory.py", "--entries", "100000", "--cap", "64Mi", "--scopes", "mixed", "--index", "10000,100000"),
    ("embedder.py", "--rounds", "100"),
    ("guard.py",),
)


def _run(title: str, command: list[str]) -> bool:
    print(f"\n== {title} ==", flush=True)
    return subprocess.run(command, check=False, cwd=HERE.parent).returncode == 0


def main(arguments: list[str]) -> int:
    went_well = [_run("serving", [sys.executable, "-m", "bench.serving", *arguments])]
    went_well.append(_run("shared store", [sys.executable, "-m", "bench.shared", *arguments]))
    short = ["--rounds", "1", "--requests", "50"] if "--quick" in arguments else []
    went_well.append(_run("feature cache", [sys.executable, "-m", "bench.features", *short]))
    went_well.append(_run("model files", [sys.executable, "-m", "bench.artifacts", *arguments]))
    if "--help" in arguments or "-h" in arguments:
        return 0
    for script, *options in SHORT:
        if (HERE / script).exists():
            went_well.append(_run(script, [sys.executable, str(HERE / script), *options]))
    return 0 if all(went_well) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
