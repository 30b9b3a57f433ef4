"""`inference-cache agent`: reads the command line, and serves until it is told to end."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from inference_cache_artifacts.agent.kubernetes import Access, url_of_cluster
from inference_cache_artifacts.agent.serving import serving
from inference_cache_artifacts.agent.settings import HIGH_WATER, Settings
from inference_cache_artifacts.handover.protocol import PORT
from inference_cache_artifacts.quantities import parse_bytes
from inference_cache_artifacts.request import Limits

log = logging.getLogger(__name__)
PROGRAM: Final = "inference-cache agent"
_FAILED: Final = 1
_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")
_UMASK: Final = 0o022
"""Model servers run as any user, and read what is here."""
_EPILOG: Final = f"""\
Fetches what the pods of this node ask for, once for all of them, through the pod that asks: credentials stay there. Keeps it verified in
a folder for each namespace, and hands it on. Pods show a service account token, which the API server reviews.

example:
  {PROGRAM} --root /var/lib/inference-cache/agent --node "$NODE_NAME\""""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; the exit status."""
    asked = _parser().parse_args(arguments)
    logging.basicConfig(level=asked.log_level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    os.umask(_UMASK)
    try:
        _prepare(asked.root)
        asyncio.run(_serve(asked))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"{PROGRAM}: {where}{error.strerror or error}\n")
        return _FAILED
    return 0


def _prepare(root: Path) -> None:
    """Raises OSError."""
    root.mkdir(parents=True, exist_ok=True)
    if not os.access(root, os.W_OK | os.X_OK):
        raise PermissionError(0, "cannot be written (read-only, or another user's)", str(root))


async def _serve(asked: argparse.Namespace) -> None:
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    host, port = asked.listen
    async with serving(_settings(asked), _access(asked), host, port, ending.set) as listening:
        log.info("serving node=%s root=%s port=%d", asked.node, asked.root, listening)
        await ending.wait()
    log.info("ended")


def _settings(asked: argparse.Namespace) -> Settings:
    limits = Limits(asked.limit_rate, asked.connections, asked.reserve)
    return Settings(asked.root, asked.node, limits, asked.high_water)


def _access(asked: argparse.Namespace) -> Access:
    files = {"token_file": asked.token_file, "ca_file": asked.ca_file}
    return Access(asked.api_server, **{name: file for name, file in files.items() if file is not None})


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Keep the model files of a node for all of its pods.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--root", type=Path, required=True, metavar="DIR", help="of the node; a folder for each namespace is made in it")
    made.add_argument("--node", type=_name, required=True, metavar="NAME", help="whose pods' trees are not removed")
    made.add_argument("--listen", type=_address, default=("0.0.0.0", PORT), metavar="HOST:PORT", help=f"default: 0.0.0.0:{PORT}")  # noqa: S104
    made.add_argument("--log-level", type=str.upper, choices=_LEVELS, default="INFO", metavar="LEVEL", help=f"{', '.join(_LEVELS)}")
    _add_limits(made)
    _add_api(made)
    return made


def _add_limits(made: argparse.ArgumentParser) -> None:
    group = made.add_argument_group("limits")
    group.add_argument("--reserve", type=_bytes, default=0, metavar="BYTES", help="left free on the disk, such as 10Gi; default: none")
    group.add_argument("--limit-rate", type=_rate, metavar="BYTES", help="a second, of each fetch, such as 200Mi; default: none")
    group.add_argument(
        "--connections", type=_connections, default=4, metavar="N", help="of each fetch at the same time; default: %(default)s"
    )
    group.add_argument(
        "--high-water",
        type=_share,
        default=HIGH_WATER,
        metavar="SHARE",
        help="of the disk in use; above it trees go that nobody uses; default: %(default)s",
    )


def _add_api(made: argparse.ArgumentParser) -> None:
    group = made.add_argument_group("the API server", "by default as every pod finds it")
    group.add_argument("--api-server", default=url_of_cluster(), required=url_of_cluster() is None, metavar="URL")
    group.add_argument("--token-file", type=Path, metavar="FILE", help="read again for every request")
    group.add_argument("--ca-file", type=Path, metavar="FILE", help="PEM")


def _name(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("it is empty")
    return text


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104


def _bytes(text: str) -> int:
    try:
        return int(parse_bytes(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _rate(text: str) -> int:
    value = _bytes(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is too little")
    return value


def _connections(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 64:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 64")
    return int(text)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share above 0 and up to 1, such as 0.85")
    return share
