from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.clients.evidence import shown


@given(st.text(), st.integers(1, 40))
def test_what_is_shown_is_one_printable_line_of_bounded_length(text: str, limit: int) -> None:
    safe = shown(text, limit)
    assert safe.isprintable()
    assert len(safe) <= limit


def test_a_plain_path_stays_as_it_is() -> None:
    assert shown("/srv/app/venv") == "/srv/app/venv"
