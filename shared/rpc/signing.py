"""Signatures: who has the key of the installation may ask and answer, and nobody else.

Rights in Redis are given per stream, so whoever may write one request stream could ask for anything, in any name.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Literal, TypeAlias

from pydantic import SecretStr

from shared.errors import ConfigurationError
from shared.settings import MIN_RPC_KEY_BYTES

_BLOCK_BYTES = 64

SignatureProblem: TypeAlias = Literal["unsigned", "wrong_signature"]


class Signer:
    """Signs ``metadata``, ``payload`` and ``instance`` with HMAC-SHA256, in a fourth field, ``signature``.

    The metadata say what kind of message it is and the payload says whom it is for, so that none can be used as another
    one or with another service.
    """

    def __init__(self, key: bytes) -> None:
        """Take the key.

        Raises:
            ConfigurationError: It is too short.
        """
        if len(key) < MIN_RPC_KEY_BYTES:
            raise ConfigurationError(f"QT_RPC_KEY must have at least {MIN_RPC_KEY_BYTES} bytes, has {len(key)}")
        # HMAC begins with a block that only depends on the key. Hashing it once and copying takes a third of the time.
        block = key if len(key) <= _BLOCK_BYTES else hashlib.sha256(key).digest()
        block = block.ljust(_BLOCK_BYTES, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def sign(self, fields: dict[bytes, bytes]) -> None:
        """Add the signature to ``fields``."""
        fields[b"signature"] = self._signature(fields)

    def problem(self, fields: Mapping[bytes, bytes]) -> SignatureProblem | None:
        """Tell what is wrong with the signature; None when nothing is."""
        given = fields.get(b"signature")
        if given is None:
            return "unsigned"
        return None if hmac.compare_digest(given, self._signature(fields)) else "wrong_signature"

    def _signature(self, fields: Mapping[bytes, bytes]) -> bytes:
        metadata, payload = fields.get(b"metadata", b""), fields.get(b"payload", b"")
        instance = fields.get(b"instance", b"")
        inner, outer = self._inner.copy(), self._outer.copy()
        # With the lengths in front no byte can be moved from one field to the next.
        inner.update(b"%d %d %d %b%b%b" % (len(metadata), len(payload), len(instance), metadata, payload, instance))
        outer.update(inner.digest())
        return outer.hexdigest().encode()


def signer_of(key: SecretStr | None) -> Signer | None:
    """Return the signer of an installation that has a key.

    Raises:
        ConfigurationError: The key is too short.
    """
    return None if key is None else Signer(key.get_secret_value().encode())
