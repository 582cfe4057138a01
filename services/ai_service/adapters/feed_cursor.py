"""Which candle was published last, in a small file: what closed while the service was away is known after it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import orjson
import structlog

log = structlog.get_logger(__name__)


class FileFeedCursor:
    """``FeedCursor`` in ``market_data/<mode>-<run id>-<timeframe>.json`` under the state folder.

    A process that dies between a publish and its note publishes that candle once more, under the same event id.
    """

    def __init__(self, state_dir: Path, *, mode: str, run_id: str, timeframe: str) -> None:
        self._path = state_dir / "market_data" / f"{mode}-{run_id}-{timeframe}.json"
        self._published: dict[str, str] = {}

    def load(self) -> Mapping[str, datetime]:
        """Return the open times noted by an earlier life; an unreadable file counts as none."""
        try:
            noted = orjson.loads(self._path.read_bytes())
            times = {str(symbol): datetime.fromisoformat(text) for symbol, text in noted.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError, TypeError) as error:
            log.warning("feed_cursor_unreadable", path=str(self._path), error=str(error))
            return {}
        self._published = {symbol: moment.isoformat() for symbol, moment in times.items()}
        return times

    def save(self, symbol: str, open_time: datetime) -> None:
        """Note one candle; the file changes at once or not at all. A full disk costs the note, not the candle."""
        self._published[symbol] = open_time.isoformat()
        draft = self._path.with_suffix(".draft")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(orjson.dumps(self._published, option=orjson.OPT_SORT_KEYS))
            draft.replace(self._path)
        except OSError as error:
            log.warning("feed_cursor_not_written", path=str(self._path), error=str(error))
