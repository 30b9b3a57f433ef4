"""The soak, cut short: some thousand mixed requests through a sidecar in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

REQUESTS = 20_000


def test_mixed_traffic_makes_nothing_grow_and_is_answered_right():
    command = [sys.executable, str(Path(__file__).with_name("soak.py")), "--requests", str(REQUESTS), "--cap", "6Mi"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert run.stdout, run.stderr
    report = json.loads(run.stdout.splitlines()[-1])
    assert report["faults"] == []
    assert report["requests"] >= REQUESTS
    outcomes = report["outcomes"]
    assert outcomes["exact"] > REQUESTS / 2
    assert min(outcomes[kind] for kind in ("semantic", "coalesced", "miss", "passed", "left mid-stream", "left mid-request")) > 100
