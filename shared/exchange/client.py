"""The one ccxt client of all modes: same code against the paper exchange, the demo exchange and the real one.

It differs from plain ccxt in four things: in paper mode nothing can leave the machine; every error carries the answer
it stands for; a damaged 200 is an error; and closed candles and raw user events are put on queues by two loops that
reconnect for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import ccxt.pro
import structlog

from shared.backoff import Backoff
from shared.clock import SystemClock
from shared.errors import ConfigurationError
from shared.exchange.outcome import ANSWER_ATTRIBUTE, CONSEQUENCES, Answer, Consequence, Outcome, error_for
from shared.exchange.request_costs import ApiRequest, request_of
from shared.exchange.request_gate import RequestGate
from shared.telemetry.metrics import Metrics
from shared.trading.instruments import venue_symbol

log = structlog.get_logger(__name__)

#: ``e`` of the message that both queues get after each (re)connect: from here on the stream is live, and what
#: happened before must be asked for by REST. Its other keys are ``stream`` (``klines`` or ``user``) and
#: ``connection`` (1, 2, ...).
STREAM_CONNECTED = "STREAM_CONNECTED"

#: A request that reaches the exchange later than this after it was signed is refused there: part of the fence.
RECV_WINDOW_MS = 3000
_PING_SECONDS = 15
_LISTEN_KEY_RENEWAL_SECONDS = 20 * 60
#: A kline stream sends four times per second while there are trades; silence for this long means a dead connection.
_SILENCE_SECONDS = 60.0
_RECONNECT = Backoff(base_seconds=0.2, factor=2.0, cap_seconds=3.0)
#: The connection failed before any byte of the request was written.
_NOT_CONNECTED = frozenset(
    {"ClientConnectorError", "ClientConnectorDNSError", "gaierror", "ClientProxyConnectionError"}
)

#: The only hosts of each mode that is not on this machine.
_HOSTS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "testnet": frozenset({"demo-fapi.binance.com", "fstream.binancefuture.com", "testnet.binancefuture.com"}),
        "live": frozenset({"fapi.binance.com", "api.binance.com", "fstream.binance.com", "ws-fapi.binance.com"}),
    }
)
#: The interfaces that are used, as ccxt names them; ``sapi`` only for the permissions of the key.
_REST_NAMES = (
    "fapiPublic", "fapiPublicV2", "fapiPublicV3", "fapiPrivate", "fapiPrivateV2", "fapiPrivateV3", "fapiData", "sapi",
)  # fmt: skip
_answer: ContextVar[tuple[int, str, Mapping[str, str]] | None] = ContextVar("exchange_answer", default=None)
#: The request that is being signed and sent; None for one that ccxt made outside its table.
_request: ContextVar[ApiRequest | None] = ContextVar("exchange_request", default=None)


def create_exchange(
    mode: str, *, base_url: str, api_key: str, secret: str, metrics: Metrics | None = None
) -> BinanceUsdm:
    """Return the client for ``mode``; it connects at the first use and must be closed with ``await client.close()``.

    Args:
        mode: ``paper``, ``testnet`` or ``live``.
        base_url: Address of the paper exchange, ``http://127.0.0.1:8100``; only used in paper mode.
        api_key: Public half of the credentials.
        secret: Their secret half.
        metrics: Gets the round trips.

    Raises:
        ConfigurationError: The mode is unknown, or paper mode points at a host that is not this machine.
    """
    exchange = BinanceUsdm(
        {
            "apiKey": api_key,
            "secret": secret,
            "enableRateLimit": False,
            "timeout": 10_000,
            "streaming": {"keepAlive": _PING_SECONDS * 1000, "maxPingPongMisses": 2},
            "options": {"recvWindow": RECV_WINDOW_MS, "fetchCurrencies": False},
        }
    )
    exchange.options["fetchOpenOrders"]["warnWithoutSymbol"] = False
    exchange.metrics = metrics
    if mode == "paper":
        _point_at(exchange, base_url)
    elif mode == "testnet":
        exchange.enable_demo_trading(True)
    elif mode != "live":
        raise ConfigurationError(f"TRADING_MODE is {mode!r}; use paper, testnet or live")
    if mode != "paper":
        _keep_only(exchange, _HOSTS[mode])
    exchange.hosts = frozenset(_hosts_of(exchange.urls["api"]))
    exchange.gate = RequestGate(exchange.rest_host, clock=SystemClock())
    return exchange


def _point_at(exchange: BinanceUsdm, base_url: str) -> None:
    """Send the futures URLs to ``base_url`` and delete all others, so that no call can leave this machine."""
    base = base_url.rstrip("/")
    if not _is_loopback(base):
        raise ConfigurationError(
            f"EXCHANGE_URL is {base_url!r}, but paper mode talks to this machine only: use http://127.0.0.1:8100"
        )
    streams = base.replace("http", "ws", 1)
    futures = {
        name: url.replace("https://fapi.binance.com", base)
        for name, url in exchange.urls["api"].items()
        if isinstance(url, str) and url.startswith("https://fapi.binance.com")
    }
    futures["sapi"] = f"{base}/sapi/v1"  # what the key may do is asked for there
    exchange.urls = {
        "api": {**futures, "ws": {"linear": f"{streams}/ws", "ws-api": {"linear": f"{streams}/ws-fapi/v1"}}}
    }
    # ccxt names errors by the host of the URL; with the real host's table a paper error looks like a live one.
    exchange.errors_as_live = True


def _keep_only(exchange: BinanceUsdm, hosts: frozenset[str]) -> None:
    """Delete every URL of another host or another product: a call that is not ours cannot leave by mistake."""
    addresses = exchange.urls["api"]
    rest = {name: addresses[name] for name in _REST_NAMES if name in addresses}
    streams = {"linear": addresses["ws"]["linear"], "ws-api": {"linear": addresses["ws"]["ws-api"]["linear"]}}
    exchange.urls = {"api": {**rest, "ws": streams}}
    if strange := set(_hosts_of(exchange.urls["api"])) - hosts:
        raise ConfigurationError(
            f"ccxt sends orders to {', '.join(sorted(strange))}, which is no host of Binance; is the package genuine?"
        )


def _hosts_of(addresses: Mapping[str, Any]) -> Iterator[str]:
    for address in addresses.values():
        if isinstance(address, str):
            yield urlsplit(address).hostname or ""
        else:
            yield from _hosts_of(address)


def _is_loopback(url: str) -> bool:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return False
    if parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname).is_loopback
    except ValueError:
        return False


class BinanceUsdm(ccxt.pro.binanceusdm):  # type: ignore[misc]  # ccxt ships no types
    """``ccxt.pro.binanceusdm`` whose errors carry their answer and whose streams can be followed.

    Attributes:
        closed_klines: Raw ``kline`` messages whose candle is closed (``k.x`` true), and ``STREAM_CONNECTED`` markers;
            filled by ``follow_klines``.
        user_events: Raw messages of the user data stream (``ORDER_TRADE_UPDATE``, ``ACCOUNT_UPDATE``,
            ``ALGO_UPDATE``, ``listenKeyExpired``, ...) and the same markers; filled by ``follow_user_stream``.
        user_stream_is_open: That stream is connected.
        user_stream_lost_at: When it was lost last, monotonic seconds; 0 before the first time.
        gate: What every request passes; one for this process alone unless another is set.
        hosts: The only hosts that this client talks to, whatever an answer or an option says.
        on_wrong_time: Called when the exchange refused a time stamp.
        on_bad_account: Called with one line when a refusal concerns the key, the modes or the state of the account.
    """

    errors_as_live = False
    metrics: Metrics | None = None
    gate: RequestGate
    hosts: frozenset[str] = frozenset()
    on_wrong_time: Callable[[], None] = staticmethod(lambda: None)
    on_bad_account: Callable[[str], None] = staticmethod(lambda why: None)

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.closed_klines: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.user_events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._followed: dict[str, Callable[[dict[str, Any]], None]] = {}
        self._on_open: dict[str, Callable[[], None]] = {}
        self.user_stream_is_open = False
        self.user_stream_lost_at = 0.0
        self._give_up_listen_key = False
        self._user_url = ""

    # -- REST ------------------------------------------------------------------------------------------------------

    @property
    def rest_host(self) -> str:
        """Host and port of the futures interface."""
        return str(urlsplit(self.urls["api"]["fapiPrivate"]).netloc)

    @property
    def tells_key_permissions(self) -> bool:
        """Whether the exchange can be asked what the key may do; the demo exchange cannot."""
        return "sapi" in self.urls["api"]

    def open(self, lazy: bool = False) -> None:
        """Make the connections; none of them follows an answer to another address."""
        is_new = self.session is None
        super().open(lazy)
        if is_new and self.session is not None:
            trace = aiohttp.TraceConfig()
            trace.on_request_redirect.append(_refuse_redirect)
            trace.freeze()
            self.session.trace_configs.append(trace)

    def client(self, url: str) -> Any:
        """Return the connection of a stream; only to a host of the mode."""
        self._require_host(url)
        return super().client(url)

    def _require_host(self, url: str) -> None:
        if (host := urlsplit(url).hostname) not in self.hosts:
            raise ConfigurationError(f"{host} is no host of this trading mode; nothing was sent there")

    def get_exceptions_by_url(self, url: str, exact_or_broad: str) -> Any:
        if self.errors_as_live:
            return self.exceptions["linear"].get(exact_or_broad, {})
        return super().get_exceptions_by_url(url, exact_or_broad)

    def on_rest_response(
        self, code: int, reason: str, url: str, method: str, headers: Mapping[str, str], *rest: Any
    ) -> str:
        """Note status, body and headers of each answer before ccxt turns them into something else."""
        body: str = super().on_rest_response(code, reason, url, method, headers, *rest)
        _answer.set((code, body, headers))
        return body

    async def fetch2(
        self,
        path: str,
        api: Any = "public",
        method: str = "GET",
        params: Any = MappingProxyType({}),
        config: Any = MappingProxyType({}),
    ) -> Any:
        """Wait until the request may go out, then sign and send it.

        Raises:
            ConnectionLostError: It may not go out now; nothing was sent.
        """
        request = request_of(method, path, params if isinstance(params, Mapping) else {})
        await self.gate.admit(request)
        _request.set(request)
        return await super().fetch2(path, api, method, params, config)

    def correct_time(self, offset_seconds: float) -> None:
        """Sign with this machine's clock plus ``offset_seconds``."""
        self.options["timeDifference"] = -round(offset_seconds * 1000)

    async def fetch(self, url: str, method: str = "GET", headers: Any = None, body: Any = None) -> Any:
        """Send one request; errors of ccxt leave with the ``Answer`` attached, see ``shared.exchange.outcome``.

        Raises:
            OutcomeUnknownError: A 2xx that changes something came with a body that is no answer of Binance.
            ConnectionLostError: The same for a read.
        """
        _answer.set(None)
        request = _request.get()
        path = urlsplit(url).path
        self._require_host(url)
        if request is not None:
            self.gate.pass_entry(request)
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            parsed = await super().fetch(url, method, headers, body)
        except Exception as error:
            answer = _answer_to(method, path, error)
            setattr(error, ANSWER_ATTRIBUTE, answer)
            await self._note(request, answer)
            raise
        finally:
            if self.metrics is not None:
                self.metrics.exchange_answered(f"{method} {path}", loop.time() - began)
        status, text, _ = _answer.get() or (None, "", {})
        answer = Answer(method, path, status, text)
        await self._note(request, answer)
        if answer.outcome is not Outcome.ACCEPTED or not isinstance(parsed, (dict, list)):
            raise error_for(answer)
        return parsed

    async def _note(self, request: ApiRequest | None, answer: Answer) -> None:
        """Draw the conclusions from an answer that concern all later requests."""
        *_, headers = _answer.get() or ({},)
        if request is not None and answer.http_status is not None:
            await self.gate.answered(request, answer, headers)
        match CONSEQUENCES.get(answer.code or 0):
            case Consequence.MEASURE_CLOCK:
                self.on_wrong_time()
            case Consequence.KEEP_ENTRIES_BACK:
                self.on_bad_account(f"{answer.method} {answer.path}: code {answer.code}, {answer.message}")

    # -- streams ---------------------------------------------------------------------------------------------------

    async def follow_klines(self, symbols: Sequence[str], timeframe: str) -> None:
        """Put every closed candle of ``symbols`` (venue or unified) on ``closed_klines``; run until cancelled."""
        streams = [f"{venue_symbol(symbol).lower()}@kline_{timeframe}" for symbol in symbols]
        subscribe = {"method": "SUBSCRIBE", "params": streams, "id": 1}
        url = self.get_ws_url("linear", "market")
        connections = 0

        def on_message(message: dict[str, Any]) -> None:
            nonlocal connections
            if message.get("e") == "kline":
                if message["k"]["x"]:
                    self.closed_klines.put_nowait(message)
            elif message.get("id") == 1 and message.get("result", 0) is None:
                connections += 1
                self.closed_klines.put_nowait(_marker("klines", connections))

        async def connect() -> None:
            self._followed[url] = on_message
            await self._hold(url, subscribe, silence_seconds=_SILENCE_SECONDS)

        await self._keep_connected("klines", connect)

    async def follow_user_stream(self) -> None:
        """Put every message of the user data stream on ``user_events``; run until cancelled.

        A new listen key is asked for at each connect (Binance answers with the same one while it lives) and renewed
        every 20 minutes; ``listenKeyExpired`` is passed on and ends the connection.
        """
        connections = 0

        def on_open() -> None:
            nonlocal connections
            connections += 1
            self.user_stream_is_open = True
            self.user_events.put_nowait(_marker("user", connections))

        async def connect() -> None:
            if self._give_up_listen_key:  # while it lives, Binance answers with the same key again
                self._give_up_listen_key = False
                with contextlib.suppress(Exception):  # one that expired cannot be given up
                    await self.fapiPrivateDeleteListenKey()
            answer = await self.fapiPrivatePostListenKey()
            url = self.get_private_ws_url("linear", answer["listenKey"])

            def on_message(message: dict[str, Any]) -> None:
                if "e" in message:
                    self.user_events.put_nowait(message)
                if message.get("e") == "listenKeyExpired":
                    self._drop(url, "the listen key expired")

            self._followed[url], self._on_open[url] = on_message, on_open
            self._user_url = url
            try:
                await self._hold(url, None, renew=self.fapiPrivatePutListenKey)
            finally:
                self.user_stream_is_open, self.user_stream_lost_at = False, asyncio.get_running_loop().time()

        await self._keep_connected("user", connect)

    def renew_user_stream(self, why: str) -> None:
        """End the connection of the user data stream; the next one is made with a listen key that is new for certain.

        For a stream that stands but says nothing: its key may be dead, and Binance would hand out the same one again.
        """
        self._give_up_listen_key = True
        self._drop(self._user_url, why)

    async def _keep_connected(self, stream: str, connect: Callable[[], Awaitable[None]]) -> None:
        """Run ``connect`` again and again; it returns or raises when its connection has ended."""
        failures = 0
        while True:
            started = self.milliseconds()
            try:
                await connect()
            except Exception as error:  # noqa: BLE001 - whatever ends a stream, it is opened again
                log.warning("exchange_stream_lost", stream=stream, error=str(error)[:300])
            # A connection that lived a while proves that the exchange is there: start from the shortest delay.
            failures = 1 if self.milliseconds() - started > 10_000 else failures + 1
            await asyncio.sleep(_RECONNECT.delay(failures))

    async def _hold(
        self,
        url: str,
        subscribe: dict[str, Any] | None,
        *,
        renew: Callable[[], Awaitable[Any]] | None = None,
        silence_seconds: float | None = None,
    ) -> None:
        """Connect to ``url`` and stay until the connection ends; raise what ended it."""
        ended: asyncio.Future[Any] = self.watch(url, "ended", subscribe, "ended")
        socket = self.client(url)
        renewal_due = _LISTEN_KEY_RENEWAL_SECONDS
        waited = 0
        try:
            while True:
                await asyncio.wait({ended}, timeout=1.0)
                if ended.done():
                    ended.result()
                    return
                waited += 1
                if renew is not None and waited >= renewal_due:
                    waited = 0
                    await renew()
                quiet_ms = self.milliseconds() - (socket.last_message_at or socket.connectionEstablished or 0)
                if silence_seconds and socket.connectionEstablished and quiet_ms > silence_seconds * 1000:
                    raise ConnectionError(f"no message for {silence_seconds:.0f} s")
        finally:
            self._followed.pop(url, None)
            self._on_open.pop(url, None)
            ended.cancel()
            self.clients.pop(url, None)
            with contextlib.suppress(Exception):  # the connection is given up; how it ends does not matter
                await socket.close()

    def _drop(self, url: str, why: str) -> None:
        if url in self.clients:
            self.clients[url].reject(ConnectionError(why), "ended")

    def ws_dial_delay(self, url: str) -> float:
        """Dial at once: the loops above have their own backoff, ccxt's would add up to 30 s."""
        return 0.0

    def on_connected(self, client: Any, message: Any = None) -> None:
        super().on_connected(client, message)
        if on_open := self._on_open.get(client.url):
            on_open()

    def handle_message(self, client: Any, message: Any) -> None:
        """Give messages of a followed connection to its queue, all others to ccxt.

        An exception here would silently end ccxt's receive loop, so none gets out.
        """
        try:
            if (on_message := self._followed.get(client.url)) is not None:
                on_message(message if isinstance(message, dict) else {})
            else:
                super().handle_message(client, message)
        except Exception as error:  # noqa: BLE001 - see above
            log.warning("exchange_message_unreadable", error=str(error)[:300], message=str(message)[:300])


async def _refuse_redirect(_session: Any, _context: Any, parameters: aiohttp.TraceRequestRedirectParams) -> None:
    raise aiohttp.ClientError(f"the exchange's answer leads to another address: {parameters.url.host}")


def _answer_to(method: str, path: str, error: Exception) -> Answer:
    noted = _answer.get()
    if noted is not None:
        return Answer(method, path, noted[0], noted[1])
    cause = type(error.__cause__).__name__ if error.__cause__ is not None else ""
    return Answer(method, path, None, "", never_sent=cause in _NOT_CONNECTED)


def _marker(stream: str, connection: int) -> dict[str, Any]:
    return {"e": STREAM_CONNECTED, "stream": stream, "connection": connection}
