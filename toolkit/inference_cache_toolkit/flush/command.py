"""`inference-cache flush`: reads the command line, orders the flush, says what came of it. Called by the console script."""

import argparse
import asyncio
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from inference_cache_contract.endpoints import ADMIN_PORT, ADMIN_TOKEN_VARIABLE
from inference_cache_toolkit.flush.ordering import FlushError, Order, Reply, order, told
from inference_cache_toolkit.flush.progress import shown

PROGRAM: Final = "inference-cache flush"
TARGETS: Final = ("version", "tag", "category", "adapter", "key")
FAILED, USAGE, INTERRUPTED = 1, 2, 130
_EPILOG: Final = f"""\
The sidecar's admin token is read from {ADMIN_TOKEN_VARIABLE}; a flag would show it to everybody on the machine.
A flush is acknowledged when no replica serves any more what was there before; then the bytes are deleted.

exit status: 0 done, {FAILED} failed or not reached (a flush may be ordered again: it does no harm), {USAGE} wrong usage,
{INTERRUPTED} interrupted (what the sidecar has heard of goes on).

examples:
  {PROGRAM} --tag pricing --dry-run
  {PROGRAM} --version v1.2.2 --background
  {PROGRAM} --all --yes --admin http://10.0.0.7:{ADMIN_PORT}"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Make stored answers unreachable on all replicas that share a store, then delete them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    what = made.add_mutually_exclusive_group(required=True)
    what.add_argument("--all", action="store_true", help="every answer of this cache; asks first on a terminal")
    what.add_argument("--version", metavar="V", help="answers of this version of the model, and no other")
    what.add_argument("--tag", metavar="T", help="answers that were stored with this tag")
    what.add_argument("--category", metavar="C", help="answers of this category")
    what.add_argument("--adapter", metavar="A", help="answers of this LoRA adapter, as clients name it")
    what.add_argument("--key", metavar="K", type=_key, help="one answer, by the key in its Cache-Status header")
    made.add_argument("--dry-run", action="store_true", help="only count what would be flushed")
    made.add_argument("--background", action="store_true", help="do not wait for the bytes to be deleted")
    made.add_argument(
        "--admin", type=_url, default=f"http://127.0.0.1:{ADMIN_PORT}", metavar="URL", help="a sidecar's admin port; default: %(default)s"
    )
    made.add_argument("--yes", action="store_true", help="do not ask")
    made.add_argument("--json", action="store_true", help="print the sidecar's answer as it came, and no progress")
    return made


def _key(text: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError("not the 64 hexadecimal digits of a key, as in Cache-Status")
    return text


def _url(text: str) -> str:
    if not re.fullmatch(r"https?://[^/\s]\S*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no http:// address")
    return text.rstrip("/")


def main(arguments: Sequence[str] | None = None) -> int:
    """Order the flush; the exit status."""
    made = parser()
    asked = made.parse_args(arguments)
    if asked.dry_run and asked.background:
        made.error("--dry-run deletes nothing, also not in the --background")
    token = os.environ.get(ADMIN_TOKEN_VARIABLE, "").strip()
    if not re.fullmatch("[!-~]+", token):
        made.error(f"{ADMIN_TOKEN_VARIABLE} must hold the sidecar's admin token")
    try:
        if _asks_first(asked) and not _agreed(asked.admin):
            print(f"{PROGRAM}: nothing is flushed", file=sys.stderr)
            return FAILED
        reply = _ordered(asked, token)
    except FlushError as error:
        return _failed(asked.json, str(error), {"error": {"message": str(error)}})
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted; what the sidecar has heard of goes on", file=sys.stderr)
        return INTERRUPTED
    return _told(asked, reply)


def _asks_first(asked: argparse.Namespace) -> bool:
    return asked.all and not asked.yes and not asked.dry_run and sys.stdin.isatty()


def _agreed(admin_url: str) -> bool:
    cache = asyncio.run(told(admin_url)).get("cache", "?")
    print(f"Flush every answer of the cache {cache}, on all replicas? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _ordered(asked: argparse.Namespace, token: str) -> Reply:
    with shown(quiet=asked.json) as show:
        return asyncio.run(order(Order(asked.admin, token, body(asked)), show))


def body(asked: argparse.Namespace) -> dict[str, str | bool]:
    """The request, as the admin API takes it."""
    given = {name: getattr(asked, name) for name in TARGETS if getattr(asked, name) is not None}
    wanted = given or {"all": True}
    return wanted | ({"dryRun": True} if asked.dry_run else {}) | ({"background": True} if asked.background else {})


def _told(asked: argparse.Namespace, reply: Reply) -> int:
    if reply.status not in (200, 202):
        error = reply.document.get("error")
        message = error.get("message") if isinstance(error, dict) else None
        return _failed(asked.json, str(message or f"the sidecar answered with status {reply.status}"), reply.document)
    print(json.dumps(reply.document) if asked.json else summary(reply.document))
    return 0


def _failed(as_json: bool, message: str, document: Mapping[str, Any]) -> int:
    if as_json:
        print(json.dumps(document))
    print(f"{PROGRAM}: {message}", file=sys.stderr)
    return FAILED


def summary(document: Mapping[str, Any]) -> str:
    """What came of a flush that went well, on one line."""
    if "wouldFlush" in document:
        return f"would flush {document['wouldFlush']:,} answers"
    if "flushed" not in document:
        return "no replica serves them any more; their bytes are being deleted"
    told = f"flushed {document['flushed']:,} answers"
    return f"{told}; no replica serves them any more" if document.get("acknowledged") else told
