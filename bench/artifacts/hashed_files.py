"""What people write who want verified files: a download, and then SHA-256 of each file, two at a time.

python -m bench.artifacts.hashed_files SUMS FOLDER COMMAND …

SUMS has lines as `sha256sum` writes them.
"""

import hashlib
import subprocess
import sys
from multiprocessing.pool import ThreadPool
from pathlib import Path

FILES_AT_ONCE = 2


def main(sums: str, folder: str, *command: str) -> int:
    subprocess.run(command, check=True)
    expected = [line.split("  ", 1) for line in Path(sums).read_text().splitlines()]
    with ThreadPool(FILES_AT_ONCE) as pool:
        found = pool.map(lambda each: _sha256(Path(folder, each[1])), expected, chunksize=1)
    return int(found != [sha256 for sha256, _ in expected])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
