"""The listen key: one at a time, an hour from the last call, and gone for good once it has expired."""

from __future__ import annotations

from datetime import timedelta

import pytest

from infrastructure.paper_exchange.listen_keys import ListenKeys
from shared.errors import OrderRejectedError
from tests.support.markets import START

MINUTE = timedelta(minutes=1)


def test_asking_again_gives_the_same_key_and_another_hour() -> None:
    keys = ListenKeys("paper")
    first = keys.create(START)
    assert keys.create(START + 59 * MINUTE) == first
    assert keys.expire(START + 118 * MINUTE) is None
    assert keys.renew(START + 118 * MINUTE) == first
    assert keys.expire(START + 177 * MINUTE) is None
    assert keys.expire(START + 178 * MINUTE) == first


def test_an_expired_key_cannot_be_renewed_and_the_next_one_is_another() -> None:
    keys = ListenKeys("paper")
    first = keys.create(START)
    assert keys.expire(START + 60 * MINUTE) == first
    assert keys.expire(START + 61 * MINUTE) is None, "told once"
    with pytest.raises(OrderRejectedError) as refused:
        keys.renew(START + 61 * MINUTE)
    assert refused.value.code == -1125
    assert keys.create(START + 62 * MINUTE) != first


def test_deleting_it_ends_it_without_a_word() -> None:
    keys = ListenKeys("paper")
    first = keys.create(START)
    keys.delete()
    assert keys.expire(START + 600 * MINUTE) is None
    assert keys.create(START) != first
