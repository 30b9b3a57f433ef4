"""Install a real Kafka broker, jars for a Java machine, into a cache that every clone shares, and say where: prints the jars' folder.

The `kafka_bootstrap` fixture runs it, and so may `make test`. Maven fetches the jars, with this user's own settings; each must have
the digest in kafka-jars.txt (the form of `sha256sum`), or nothing is installed. Nothing is done where all of them stand; two runs at
once wait for each other; one that was interrupted is begun again. After a change of kafka-pom.xml: `install_kafka.py --pin`.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

VERSION = "4.2.0"
POM = Path(__file__).with_name("kafka-pom.xml")
PINS = Path(__file__).with_name("kafka-jars.txt")
PACKAGES = {"java": "openjdk-17-jre-headless (or default-jre-headless)", "mvn": "maven"}
"""Debian's, by program."""
MAVEN_SECONDS = 600


def cache_folder() -> Path:
    named = os.environ.get("INFERENCE_CACHE_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "inference-cache"


@contextmanager
def locked(file: Path) -> Iterator[None]:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def recipe() -> str:
    """What a complete installation was made from."""
    return hashlib.sha256(POM.read_bytes() + PINS.read_bytes()).hexdigest()


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        sys.exit(f"{name} is missing: the tests against a real Kafka need it; install the Debian package {PACKAGES[name]}")
    return found


def fetch(folder: Path) -> None:
    """Have Maven put the jars, and nothing else, into `folder`. Exits with what Maven says."""
    goal = ["dependency:copy-dependencies", f"-DoutputDirectory={folder}"]
    run = subprocess.run(
        [program("mvn"), "--batch-mode", "--quiet", "--file", POM, *goal],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=MAVEN_SECONDS, check=False,
    )  # fmt: skip
    if run.returncode != 0:
        sys.exit(f"mvn could not fetch Kafka's jars:\n{run.stdout[-4000:]}")


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 by name of every file there."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


def pinned() -> dict[str, str]:
    return {name: digest for digest, name in (line.split() for line in PINS.read_text().splitlines())}


def differences(found: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """One line for each file that is missing, unknown or not the one that was pinned."""
    missing = [f"{name} is missing" for name in wanted if name not in found]
    unknown = [f"{name} is not pinned" for name in found if name not in wanted]
    changed = [
        f"{name} has the digest {found[name]}, not {wanted[name]}" for name in wanted if found.get(name, wanted[name]) != wanted[name]
    ]
    return missing + unknown + changed


def install(folder: Path) -> None:
    """Exits, with `folder` untouched, if the jars are not those that were pinned."""
    sys.stderr.write(f"installing Kafka {VERSION} into {folder} (43 MB, once)\n")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}-") as fresh:
        jars = Path(fresh) / "jars"
        fetch(jars)
        if problems := differences(digests(jars), pinned()):
            sys.exit(f"Kafka's jars are not those of {PINS.name}:\n" + "\n".join(problems))
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        jars.rename(folder / "jars")


def pin() -> None:
    """Write down the digests of what Maven fetches now."""
    with tempfile.TemporaryDirectory() as fresh:
        fetch(Path(fresh))
        PINS.write_text("".join(f"{digest}  {name}\n" for name, digest in digests(Path(fresh)).items()))


def main() -> None:
    if sys.argv[1:] == ["--pin"]:
        return pin()
    program("java")
    folder = cache_folder() / f"kafka-{VERSION}"
    marker = folder / "inference-cache-complete"
    with locked(cache_folder() / "kafka.lock"):
        if not marker.exists() or marker.read_text() != recipe():
            install(folder)
            marker.write_text(recipe())
    sys.stdout.write(f"{folder / 'jars'}\n")
    return None


if __name__ == "__main__":
    main()
