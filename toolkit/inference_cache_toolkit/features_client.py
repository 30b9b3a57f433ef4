"""A client of a Feast-compatible feature server, for the four things applications do most. Point it at the feature cache or at the server.

async with FeatureClient("http://127.0.0.1:6566") as features:
    await features.user_features(7, ["user_stats:age", "user_stats:city"])
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Self

import aiohttp

Value = str | int
Vector = list[float]
READ: Final = "/get-online-features"
WRITE: Final = "/write-to-online-store"
PUSH: Final = "/push"


class FeatureError(Exception):
    """The server did not answer as asked; `status` is its HTTP status, None where there was no answer or none that makes sense."""

    def __init__(self, status: int | None, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Columns:
    """What the feature repository calls them."""

    user: str = "user_id"
    item: str = "item_id"
    timestamp: str = "event_timestamp"
    """Of written rows."""


class FeatureClient:
    """An async context manager; every method raises FeatureError."""

    def __init__(
        self, url: str, *, headers: Mapping[str, str] | None = None, columns: Columns | None = None, timeout_seconds: float = 10.0
    ) -> None:
        """`headers` go with every request, such as Authorization."""
        self._url = url.rstrip("/")
        self._headers = dict(headers or {})
        self._columns = columns or Columns()
        self._timeout_seconds = timeout_seconds
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=self._timeout_seconds)
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def user_features(self, user_id: Value, features: Sequence[str]) -> dict[str, Any]:
        """One user's values by feature (`view:feature`); None for what there is no value of."""
        (row,) = await self.batch_get({self._columns.user: [user_id]}, features)
        return row

    async def item_embeddings(self, item_ids: Sequence[Value], feature: str = "item_embeddings:embedding") -> list[Vector | None]:
        """In the order asked; None for an item without one."""
        if not item_ids:
            return []
        return [row[feature] for row in await self.batch_get({self._columns.item: item_ids}, [feature])]

    async def batch_get(self, entities: Mapping[str, Sequence[Value]], features: Sequence[str]) -> list[dict[str, Any]]:
        """For each row of `entities` (columns of join keys, all of one length) its values by feature, as JSON has them.

        Fractions that JSON has no number for come as Feast writes them: "NaN", "Infinity", "-Infinity".
        """
        asked = {
            "features": list(features),
            "entities": {key: list(values) for key, values in entities.items()},
            "full_feature_names": True,
        }
        answer = await self._post(READ, asked)
        try:
            names, results = answer["metadata"]["feature_names"], answer["results"]
            values = dict(zip(names, (result["values"] for result in results), strict=True))
            columns = [values[feature.replace(":", "__", 1)] for feature in features]
            return [dict(zip(features, row, strict=True)) for row in zip(*columns, strict=True)]
        except (KeyError, TypeError, ValueError) as error:
            raise FeatureError(None, "the feature server's answer has another form") from error

    async def batch_set(self, view: str, rows: Sequence[Mapping[str, Any]], *, push_source: str | None = None) -> None:
        """Write rows (join keys and all features of the view) to the online store, through `push_source` where one is named.

        A row without an event timestamp gets the present time. When this returns the feature cache that it was written through serves
        none of these entities' older values. Raises ValueError where rows have different columns.
        """
        if not rows:
            return
        now = datetime.now(UTC).isoformat()
        stamped = [{self._columns.timestamp: now, **row} for row in rows]
        if any(row.keys() != stamped[0].keys() for row in stamped):
            raise ValueError("all rows must have the same columns")
        frame = {name: [row[name] for row in stamped] for name in stamped[0]}
        if push_source is None:
            await self._post(WRITE, {"feature_view_name": view, "df": frame})
        else:
            await self._post(PUSH, {"push_source_name": push_source, "df": frame})

    async def _post(self, path: str, document: Mapping[str, Any]) -> Any:
        """The answer's JSON; None where it has none."""
        if self._session is None:
            raise RuntimeError("use the client in `async with`")
        try:
            async with self._session.post(self._url + path, json=document) as answer:
                if not 200 <= answer.status < 300:
                    raise FeatureError(answer.status, f"the feature server answered {path} with {answer.status}")
                return await answer.json() if answer.content_type == "application/json" else None
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise FeatureError(None, f"the feature server did not answer {path}: {type(error).__name__}") from error
