"""Keep secrets and terminal tricks out of what is written: by value, by pattern, and character by character."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from datetime import datetime
from urllib.parse import quote

import orjson

MASK = b"***"
#: Shorter values (``paper``) are words of the trade; masking them would garble every line.
MINIMUM_SECRET_LENGTH = 6

#: Ends of names: ``jwt_secret_key`` and ``ws_token`` are among them.
_NAMES = (
    rb"(?:signature|listenkey|api[-_]?key|private[-_]?key|secret(?:[-_]?key)?|password|passwd|passphrase|token"
    rb"|authorization)"
)
_PATTERNS = (
    # ?signature=abc&  password='abc'
    (re.compile(rb"(" + _NAMES + rb"=\\?[\"']?)[^&\s\"'\\,;)}\]]+", re.IGNORECASE), rb"\1" + MASK),
    # "listenKey":"abc", also inside a string of JSON or of a Python dict
    (re.compile(rb"(" + _NAMES + rb"\\?[\"']\s*:\s*\\?[\"'])[^\"'\\]+", re.IGNORECASE), rb"\1" + MASK),
    # Authorization: Bearer abc
    (re.compile(rb"(" + _NAMES + rb"\s*:\s+(?:bearer\s+|basic\s+)?)[^\s\"'\\,;]+", re.IGNORECASE), rb"\1" + MASK),
    # redis://user:abc@host
    (re.compile(rb"(://[^:/@\s\"'\\]*:)[^@/\s\"'\\]+@"), rb"\1" + MASK + b"@"),
)
# One of these is in every line that a pattern can match. Looking for a plain word is some hundred times faster than
# trying the patterns, and almost no line has one. (Words of text are found twice as fast as words of bytes.)
_HINTS = ("://", "key", "secret", "pass", "signature", "authorization", "token")


class Masker:
    """Replaces secrets in rendered lines.

    Args:
        secrets: Values that must never be written, at least 6 characters each; shorter ones are left alone.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets if len(secret) >= MINIMUM_SECRET_LENGTH for form in _written_forms(secret)}
        # Longest first, so that a secret that contains another one goes as a whole.
        longest_first = sorted(forms, key=lambda form: (-len(form), form))
        self._values = tuple((form.decode("latin-1"), form) for form in longest_first)

    def mask(self, line: bytes) -> bytes:
        """Return ``line`` without secrets; valid JSON stays valid JSON."""
        line = self.mask_values(line)
        return _mask_patterns(line) if has_hint(line.decode("latin-1")) else line

    def mask_values(self, line: bytes) -> bytes:
        """Return ``line`` without the known secrets; whoever calls this knows that no pattern can match."""
        text = line.decode("latin-1")  # one character per byte, so that words of bytes can be looked for
        for word, value in self._values:
            if word in text:
                line = line.replace(value, MASK)
        return line


class _InForce:
    """The masker of this process; patterns alone until somebody says what the secrets are."""

    masker = Masker()


def use_masker(masker: Masker) -> None:
    """Make ``masker`` the one that ``mask_text`` uses in this process."""
    _InForce.masker = masker


def mask_text(text: str) -> str:
    """Return ``text`` as one printable line without secrets: for all that leaves the process beside its log.

    Messages of exceptions are the usual case: in dead letters, RPC answers, health reports, spans.
    """
    return mask_bytes(printable(text).encode("utf-8", "replace")).decode("utf-8", "replace")


def mask_bytes(body: bytes) -> bytes:
    """Return ``body``, UTF-8 text, without secrets; valid JSON stays valid JSON."""
    return _InForce.masker.mask(body)


def has_hint(text: str) -> bool:
    """Tell whether a pattern may match somewhere in ``text``; False is certain."""
    lowered = text.lower()
    return any(hint in lowered for hint in _HINTS)


def _written_forms(secret: str) -> set[bytes]:
    """Return how a secret can appear: plain, in a URL, in a repr; each also in JSON, and in JSON inside JSON."""
    plain = secret.encode("utf-8", "replace").decode()
    forms = {plain, quote(plain, safe=""), quote(plain), repr(plain)[1:-1]}
    in_json = {orjson.dumps(form)[1:-1].decode() for form in forms}
    in_nested_json = {orjson.dumps(form)[1:-1].decode() for form in in_json}
    return {form.encode() for form in forms | in_json | in_nested_json}


def _mask_patterns(line: bytes) -> bytes:
    for pattern, replacement in _PATTERNS:
        line = pattern.sub(replacement, line)
    return line


_ANSI = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\-_]")
#: Control, format (bidirectional overrides), surrogate, line and paragraph separator.
_UNPRINTABLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def needs_cleaning(line: bytes) -> bool:
    """Tell whether a rendered line can hold anything that ``printable`` would change."""
    return b"\\" in line or b"\x7f" in line or not line.isascii()


def printable(text: str) -> str:
    """Return ``text`` as one line: terminal sequences removed, line ends and other control characters as spaces."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(" " if unicodedata.category(char) in _UNPRINTABLE else char for char in _ANSI.sub("", text))


def plain_value(value: object) -> object:
    """Return ``value`` with every string in it ``printable`` and nothing in it that JSON cannot hold."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, Mapping):
        return {printable(str(key)): plain_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_value(item) for item in value]
    return printable(value if isinstance(value, str) else readable(value))


def readable(value: object) -> str:
    """Return text for any object; never raises, because a log line must not end the work it tells about."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "replace")
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - a broken __str__ must not break the line
        return f"<{type(value).__name__}>"
