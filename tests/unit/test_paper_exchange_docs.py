"""The page about the paper exchange lists the endpoints and the faults that the code has."""

from __future__ import annotations

from infrastructure.docs.paper_exchange_page import PAGE, page
from infrastructure.paper_exchange.endpoints import ENDPOINTS
from infrastructure.paper_exchange.faults import FAULTS

TEXT = PAGE.read_text(encoding="utf-8")


def test_the_tables_are_up_to_date() -> None:
    assert page(TEXT) == TEXT, "run: python -m infrastructure.docs.paper_exchange_page"
    assert all(f"| `{kind}` |" in TEXT for kind in FAULTS)
    assert all(f"| `{each.method} {each.path}` |" in TEXT for each in ENDPOINTS)
