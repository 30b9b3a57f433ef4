"""Warning events: one for each time that a resource becomes stalled, or its files cannot be fetched."""

from typing import Any

import pytest

from inference_cache_operator.status_warnings import warnings


def stalled(reason: str, status: str = "True") -> dict[str, Any]:
    return {"conditions": [{"type": "Stalled", "status": status, "reason": reason, "message": "m"}]}


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        pytest.param({}, stalled("WouldInterrupt"), ["WouldInterrupt"], id="at-first-sight"),
        pytest.param(stalled("Fine", "False"), stalled("ImagePullFailed"), ["ImagePullFailed"], id="begins"),
        pytest.param(stalled("WouldInterrupt"), stalled("WouldInterrupt"), [], id="stays"),
        pytest.param(stalled("ImagePullFailed"), stalled("WouldInterrupt"), ["WouldInterrupt"], id="another-reason"),
        pytest.param(stalled("ImagePullFailed"), stalled("ImagePullTrial"), [], id="a-trial"),
        pytest.param(stalled("ImagePullTrial"), stalled("ImagePullFailed"), [], id="after-a-trial"),
        pytest.param(stalled("WouldInterrupt"), stalled("Fine", "False"), [], id="ends"),
        pytest.param({}, stalled("Conflicted"), [], id="not-warned-of"),
    ],
)
def test_it_is_told_once(before: dict[str, Any], after: dict[str, Any], told: list[str]) -> None:
    said = warnings(before, after)
    assert [each.reason for each in said] == told
    assert all((each.type, each.message) == ("Warning", "m") for each in said)


def fetching(reason: str, phase: str = "Stable", status: str = "False") -> dict[str, Any]:
    return {"phase": phase, "conditions": [{"type": "ArtifactsReady", "status": status, "reason": reason, "message": "m"}]}


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        pytest.param({}, fetching("Corrupt"), ["FetchFailed"], id="a-pod-of-its-own-fails"),
        pytest.param(fetching("Preloading", "Preloading"), fetching("Corrupt", "Preloading"), ["PrefetchFailed"], id="ahead"),
        pytest.param(fetching("Corrupt", "Preloading"), fetching("Corrupt", "Preloading"), [], id="stays"),
        pytest.param(fetching("Corrupt", "Preloading"), fetching("Missing", "Preloading"), ["PrefetchFailed"], id="another-reason"),
        pytest.param(fetching("Corrupt"), fetching("Fetching"), [], id="goes-on"),
        pytest.param({}, fetching("Ready", status="True"), [], id="is-there"),
        pytest.param({}, fetching("NoPods", status="True"), [], id="no-pods"),
    ],
)
def test_that_files_cannot_be_fetched_is_told_once_for_each_reason(before: dict[str, Any], after: dict[str, Any], told: list[str]) -> None:
    said = warnings(before, after)
    assert [each.reason for each in said] == told
    assert all(each.message.partition(": ")[2] == "m" for each in said)
