"""Load by wrk: one window of requests from a file of bodies, and what came of it. Called by the serving bench.

wrk asks again as soon as it is answered (closed loop), so that at 32 clients the latencies hold the queue of 32.
"""

import json
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import questions

TIMEOUT_SECONDS: Final = 60.0
SCRIPT: Final = """
local bodies = {{}}
sent, kinds = 0, {{}}
wrk.method = "POST"
local head = "POST {path} HTTP/1.1\\r\\nHost: bench\\r\\n{headers}Content-Length: "

function setup(thread) the_thread = thread end

function init(args)
  for line in io.lines("{bodies}") do bodies[#bodies + 1] = line end
end

function request()
  local body = bodies[sent % #bodies + 1]
  sent = sent + 1
  return head .. #body .. "\\r\\n\\r\\n" .. body
end

local find = string.find
function response(status, headers, body)
  local said, kind = headers["Cache-Status"], "none"
  if said then
    if find(said, 'detail="exact', 1, true) then kind = "exact"
    elseif find(said, 'detail="semantic', 1, true) then kind = "semantic"
    elseif find(said, "fwd=miss", 1, true) then kind = "miss"
    elseif find(said, "fwd=bypass", 1, true) then kind = "bypass" end
  end
  if status ~= 200 then kind = "status " .. status end
  kinds[kind] = (kinds[kind] or 0) + 1
end

function done(summary, latency)
  local e, seen = summary.errors, {{}}
  for name, count in pairs(the_thread:get("kinds")) do seen[#seen + 1] = string.format('"%s":%d', name, count) end
  io.write(string.format(
    '\\n{{"requests":%d,"micros":%d,"p50":%d,"p99":%d,"errors":%d,"sent":%d,"kinds":{{%s}}}}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.timeout, the_thread:get("sent"), table.concat(seen, ",")))
end
"""


@dataclass(frozen=True, slots=True)
class Window:
    """What one run of wrk saw."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: int
    """Of the connection; answers other than 200 are kinds."""
    sent: int
    """Bodies used up."""
    kinds: dict[str, int]
    """How many answers were of which kind, by their `Cache-Status`; `none` where there is no such header."""


class Wrk:
    """Runs on one core, with its files in `folder`."""

    def __init__(self, folder: Path, prefix: list[str]) -> None:
        self._folder = folder
        self._prefix = prefix

    def run(self, url: str, bodies: Iterable[bytes], clients: int, seconds: int) -> Window:
        """Ask the bodies one after the other, then from the first one again. Raises if wrk fails."""
        file = self._folder / "bodies"
        file.write_bytes(b"\n".join(bodies) + b"\n")
        script = self._folder / "window.lua"
        headers = "".join(f"{name}: {value}\\r\\n" for name, value in questions.HEADERS.items())
        script.write_text(SCRIPT.format(path=questions.CHAT, headers=headers, bodies=file))
        command = [*self._prefix, "wrk", "-t1", f"-c{clients}", f"-d{seconds}s", f"--timeout={TIMEOUT_SECONDS:g}s", "-s", script, url]
        done = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True, timeout=seconds + 60)
        return _window(json.loads(done.stdout.splitlines()[-1]))


def _window(told: dict[str, object]) -> Window:
    numbers = {name: value for name, value in told.items() if isinstance(value, int)}
    kinds = told["kinds"]
    assert isinstance(kinds, dict)
    return Window(
        requests=numbers["requests"],
        seconds=numbers["micros"] / 1e6,
        p50_ms=numbers["p50"] / 1e3,
        p99_ms=numbers["p99"] / 1e3,
        errors=numbers["errors"],
        sent=numbers["sent"],
        kinds=kinds,
    )
