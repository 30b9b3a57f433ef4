"""The command lines of `inference-cache fetch` and `inference-cache manifest`. Pure, but for the reading of files that are named."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from inference_cache_artifacts.manifest import FILE_NAME
from inference_cache_artifacts.quantities import parse_bytes, parse_seconds
from inference_cache_artifacts.store.using import HOLDER

T = TypeVar("T")
FETCH: Final = "inference-cache fetch"
MANIFEST: Final = "inference-cache manifest"
FAILED, USAGE = 1, 2
_AGENT: Final = re.compile(r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?/?")
_MOST_CONNECTIONS: Final = 64
_STATUS: Final = f"exit status: 0 done, {FAILED} failed, {USAGE} wrong usage, 130 and 143 ended by SIGINT and SIGTERM"
_FETCH_EPILOG: Final = f"""\
The next fetch of the same goes on where one stopped, whatever ended it. The version and the sources name the content: what is there is not
asked for again. Without --credentials-dir, S3 is asked with what the AWS SDK finds: environment, profile, web identity.

{_STATUS}.

examples:
  {FETCH} s3://models/llama/v3 https://cdn.example/llama/v3 --to models/llama --version v3
  {FETCH} --check --to models/llama"""
_MANIFEST_EPILOG: Final = f"""\
Printed is the SHA-256 of the manifest, to pin it with `fetch --manifest-sha256` or in a resource.

{_STATUS} (with --check: {FAILED} also where anything differs).

examples:
  {MANIFEST} models/llama && aws s3 sync models/llama s3://models/llama/v3
  {MANIFEST} s3://models/llama/v3 --output llama.json"""


def fetch_parser() -> argparse.ArgumentParser:
    made = _parser(FETCH, "Bring model files here, verified, and go on where a former fetch stopped.", _FETCH_EPILOG)
    made.add_argument("sources", nargs="*", metavar="SOURCE", help="s3://BUCKET/PREFIX or https://HOST/PATH; several are mirrors, in order")
    made.add_argument("--to", type=_folder, metavar="DIR", help="becomes a link to the files, once all are there")
    made.add_argument(
        "--holder", type=_holder, metavar="NAME", help="in the place of --to: who uses the tree in --store, and those of --keep"
    )
    made.add_argument("--version", default="", metavar="TEXT", help="of the content; versions share the bytes that are equal")
    made.add_argument("--store", type=_folder, metavar="DIR", help="keeps files by content; default: .inference-cache-store beside --to")
    made.add_argument("--check", action="store_true", help="read what is there again and compare; fetches nothing, needs no SOURCE")
    _add_verification(made)
    _add_access(made)
    _add_agent(made)
    _add_limits(made)
    _add_showing(made)
    made.add_argument("--termination-message", type=Path, metavar="FILE", help="on failure gets reason, file and message as JSON")
    return made


def manifest_parser() -> argparse.ArgumentParser:
    made = _parser(MANIFEST, "Write down what an artifact's files are: path, size, SHA-256.", _MANIFEST_EPILOG)
    made.add_argument("what", metavar="DIR|URL", help="a folder, or an s3:// URL, whose every object is read once")
    what = made.add_mutually_exclusive_group()
    what.add_argument("--output", "-o", metavar="FILE", help=f"- is stdout; default: {FILE_NAME} in DIR, of a URL in this folder")
    what.add_argument("--check", type=Path, metavar="FILE", help="writes nothing: says which files of DIR differ from this manifest")
    _add_access(made)
    _add_showing(made)
    return made


def _parser(program: str, description: str, epilog: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=program,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _add_verification(made: argparse.ArgumentParser) -> None:
    group = made.add_argument_group("what is verified")
    pinned = group.add_mutually_exclusive_group()
    pinned.add_argument("--manifest", metavar="FILE", help=f"here, or env:VARIABLE; default: {FILE_NAME} beside the files, if there is one")
    pinned.add_argument("--manifest-sha256", type=_sha256, metavar="HEX", help="of the manifest beside the files")
    group.add_argument("--verify", choices=("Required", "None"), default="Required", help="None: fetch also what nothing can verify")


def _add_access(made: argparse.ArgumentParser) -> None:
    group = made.add_argument_group("how sources are reached")
    group.add_argument(
        "--credentials-dir", type=Path, metavar="DIR", help="a mounted Secret: a file for each key, such as AWS_ACCESS_KEY_ID"
    )
    group.add_argument("--ca-file", type=Path, metavar="FILE", help="PEM: whom to trust, in the place of the system's authorities")
    group.add_argument("--plain-http", action="store_true", help="allow http:// beyond this machine")


def _add_agent(made: argparse.ArgumentParser) -> None:
    group = made.add_argument_group("through the agent of the node, with --holder")
    group.add_argument(
        "--agent", type=_agent, metavar="URL", help="fetches for all pods of its node, such as http://HOST:PORT; sources are read here"
    )
    group.add_argument("--agent-token", type=Path, metavar="FILE", help="says who asks; read again whenever it is sent")
    group.add_argument(
        "--node-only", action="store_true", help="the agent keeps the files, --store is its own or missing; nothing is written here"
    )


def _add_limits(made: argparse.ArgumentParser) -> None:
    group = made.add_argument_group("limits")
    group.add_argument("--limit-rate", type=_of(parse_bytes, 1), metavar="BYTES", help="a second, such as 200Mi; default: none")
    group.add_argument("--connections", type=_connections, default=4, metavar="N", help="at the same time, at most; default: %(default)s")
    group.add_argument("--timeout", type=_of(parse_seconds, 0.001), metavar="TIME", help="for all of it, such as 30m; default: none")
    group.add_argument("--reserve", type=_of(parse_bytes, 0), default=0, metavar="BYTES", help="left free on the disk, such as 1Gi")
    group.add_argument("--keep", action="append", default=[], metavar="TREE", help="not removed to make room; may be repeated")


def _add_showing(made: argparse.ArgumentParser) -> None:
    group = made.add_argument_group("what is shown")
    how = group.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="progress and outcome on stdout, one JSON object a line")
    how.add_argument("--quiet", action="store_true", help="only errors")
    group.add_argument("--progress-file", type=Path, metavar="FILE", help="is replaced every second by one with the progress, as JSON")


def _of(parse: Callable[[str], T], least: float) -> Callable[[str], T]:
    def parsed(text: str) -> T:
        try:
            value = parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        if not isinstance(value, (int, float)) or value < least:
            raise argparse.ArgumentTypeError(f"{text!r} is too little")
        return value

    return parsed


def _connections(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MOST_CONNECTIONS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {_MOST_CONNECTIONS}")
    return int(text)


def _sha256(text: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError("not 64 hexadecimal digits")
    return text.lower()


def _agent(text: str) -> str:
    """Without a slash at the end."""
    if not _AGENT.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not like http://HOST:PORT")
    return text.rstrip("/")


def _holder(text: str) -> str:
    if not HOLDER.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not made of letters, digits, dots, - and _")
    return text


def _folder(text: str) -> Path:
    """Absolute, so that it has a name and a parent; links in it stay links."""
    if not text.strip("/."):
        raise argparse.ArgumentTypeError(f"{text!r} is no folder that could be made")
    return Path(text).absolute()
