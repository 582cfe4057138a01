"""The admin port: look into the books, and break things on purpose. Loopback only, for tests and demos."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from infrastructure.paper_exchange.fault_acts import check_fields, perform_due
from infrastructure.paper_exchange.faults import FAULTS, Fault
from infrastructure.paper_exchange.live_exchange import LiveExchange
from infrastructure.paper_exchange.records import Books
from shared.errors import InvalidInputError, QuantumTraderError
from shared.trading.instruments import venue_symbol

_FAULT_FIELDS = frozenset(field.name for field in dataclasses.fields(Fault))


def admin_app(exchange: LiveExchange) -> Starlette:
    """Return the admin application."""
    api = _AdminApi(exchange)
    table: list[tuple[str, str, Callable[[Request], Awaitable[Response]]]] = [
        ("GET", "/admin/books", api.books),
        ("GET", "/admin/requests", api.list_requests),
        ("DELETE", "/admin/fills/{symbol}/{trade_id:int}", api.delete_fill),
        ("GET", "/admin/faults", api.list_faults),
        ("POST", "/admin/faults", api.arm_fault),
        ("DELETE", "/admin/faults", api.clear_faults),
        ("POST", "/admin/faults/script", api.run_script),
        ("POST", "/admin/market/freeze", api.freeze),
        ("POST", "/admin/market/resume", api.resume),
        ("POST", "/admin/market/candle", api.inject_candle),
        ("POST", "/admin/streams/close", api.close_streams),
        ("POST", "/admin/listen_key/expire", api.expire_listen_key),
        ("POST", "/admin/account/settings", api.change_settings),
    ]
    return Starlette(
        routes=[Route(path, handler, methods=[method]) for method, path, handler in table],
        exception_handlers={QuantumTraderError: _refuse},
    )


class _AdminApi:
    """One method per route of the table above."""

    def __init__(self, exchange: LiveExchange) -> None:
        self._exchange = exchange

    async def books(self, _request: Request) -> Response:
        self._exchange.sync()
        return _json(plain_books(self._exchange.engine.books()))

    async def list_requests(self, request: Request) -> Response:
        """The newest requests that arrived, oldest first; ``contains`` narrows them down by a part of their text."""
        part = request.query_params.get("contains", "")
        rows = [dataclasses.asdict(each) for each in self._exchange.requests]
        return _json([row for row in rows if part in f"{row['method']} {row['path']} {row['query']} {row['body']}"])

    async def delete_fill(self, request: Request) -> Response:
        symbol, trade_id = venue_symbol(request.path_params["symbol"]), request.path_params["trade_id"]
        if not self._exchange.engine.remove_fill(symbol, trade_id):
            raise InvalidInputError(f"there is no fill {trade_id} of {symbol}")
        return _json({"deleted": trade_id, "symbol": symbol})

    async def list_faults(self, _request: Request) -> Response:
        kinds = {name: row.text for name, row in FAULTS.items()}
        values = {name: row.values for name, row in FAULTS.items() if row.values}
        occasions = {name: row.occasion.value for name, row in FAULTS.items()}
        return _json({"kinds": kinds, "occasions": occasions, "values": values, **self._armed()})

    async def arm_fault(self, request: Request) -> Response:
        fault = self._checked(await _body(request))
        self._exchange.faults.arm(fault, self._exchange.clock.monotonic())
        perform_due(self._exchange)
        return _json(self._armed())

    async def run_script(self, request: Request) -> Response:
        """Replace what is armed by a list of faults with one seed."""
        asked = await _body(request)
        rows, seed = asked.get("faults"), asked.get("seed", 0)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows) or not isinstance(seed, int):
            raise InvalidInputError("a script is {'seed': whole number, 'faults': [fault, ...]}")
        script = [self._checked(row) for row in rows]
        self._exchange.clear_faults()
        self._exchange.faults.run_script(script, seed, self._exchange.clock.monotonic())
        perform_due(self._exchange)
        return _json(self._armed())

    async def clear_faults(self, _request: Request) -> Response:
        self._exchange.clear_faults()
        return _json(self._armed())

    def _checked(self, asked: dict[str, Any]) -> Fault:
        fault = _fault_from(asked)
        fault.check()
        check_fields(self._exchange, fault)
        return fault

    def _armed(self) -> dict[str, Any]:
        faults = self._exchange.faults
        return {"armed": [dataclasses.asdict(each) for each in faults.armed()], "struck": faults.struck}

    async def freeze(self, _request: Request) -> Response:
        self._exchange.freeze(frozen=True)
        return _json({"frozen": True, "market_time": self._exchange.engine.now.isoformat()})

    async def resume(self, _request: Request) -> Response:
        self._exchange.freeze(frozen=False)
        self._exchange.tick()
        return _json({"frozen": False, "market_time": self._exchange.engine.now.isoformat()})

    async def inject_candle(self, request: Request) -> Response:
        asked = await _body(request)
        symbol = venue_symbol(str(asked.get("symbol", "")))
        self._exchange.engine.contract(symbol)
        timeframe = str(asked.get("timeframe", self._exchange.engine.timeframe))
        changes = asked.get("fields", {"c": "NaN"})
        if not isinstance(changes, dict):
            raise InvalidInputError(f"fields must be an object such as {{'c': 'NaN'}}, was {changes!r}")
        return _json(self._exchange.streams.publish_raw_candle(symbol, timeframe, changes))

    async def close_streams(self, request: Request) -> Response:
        which = str((await _body(request)).get("which", "all"))
        if which not in ("user", "market", "all"):
            raise InvalidInputError(f"which must be user, market or all, was {which!r}")
        closed = self._exchange.hub.close(user=which != "market", market=which != "user")
        return _json({"closed": closed})

    async def expire_listen_key(self, _request: Request) -> Response:
        return _json({"expired": self._exchange.expire_listen_key()})

    async def change_settings(self, request: Request) -> Response:
        return _json(self._exchange.terms.change(await _body(request)))


async def _refuse(_request: Request, error: Exception) -> Response:
    return _json({"error": str(error)}, status=400)


async def _body(request: Request) -> dict[str, Any]:
    raw = await request.body()
    try:
        parsed = orjson.loads(raw) if raw else {}
    except orjson.JSONDecodeError:
        raise InvalidInputError("the body is no JSON") from None
    if not isinstance(parsed, dict):
        raise InvalidInputError("the body must be a JSON object")
    return parsed


def _fault_from(asked: dict[str, Any]) -> Fault:
    unknown = sorted(set(asked) - _FAULT_FIELDS)
    if unknown or "kind" not in asked:
        raise InvalidInputError(f"a fault has {', '.join(sorted(_FAULT_FIELDS))}; unknown: {', '.join(unknown) or '-'}")
    return Fault(**{name: _typed(name, asked) for name in asked})


#: Type of each field of a fault.
_FIELD_TYPES: dict[str, Callable[[Any], Any]] = {
    field.name: str if field.name == "kind" else type(field.default) for field in dataclasses.fields(Fault)
}


def _typed(name: str, asked: dict[str, Any]) -> Any:
    """Return a field as the type it has in ``Fault``; ``value`` and ``symbol`` are read leniently."""
    value = asked[name]
    if name == "symbol":
        return venue_symbol(str(value)) if value else ""
    if name == "value" and isinstance(value, dict):
        return orjson.dumps(value).decode()
    try:
        return _FIELD_TYPES[name](value)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"fault {asked['kind']} has a field of the wrong type: {error}") from None


def plain_books(books: Books) -> dict[str, Any]:
    """Return the books as they are shown: fills flat; in JSON numbers become text and times ISO 8601."""
    plain: dict[str, Any] = dataclasses.asdict(books)
    plain["fills"] = [
        {**row["fill"], "order_id": row["order_id"], "is_maker": row["is_maker"]} for row in plain["fills"]
    ]
    return plain


def _json(value: object, status: int = 200) -> Response:
    return Response(
        orjson.dumps(value, default=_plain, option=orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATETIME),
        status_code=status,
        media_type="application/json",
    )


def _plain(value: object) -> str:
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Enum):
        return str(value.value)
    raise TypeError(f"no JSON for {type(value).__name__}")
