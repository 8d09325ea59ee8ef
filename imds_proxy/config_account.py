"""The kind of value that names a user of the machine.

Knows the form only: whether there is such a user is seen when the daemon starts.
"""

from __future__ import annotations

import re

from imds_proxy.config_values import quoted

_NAME = re.compile(r"[a-z_][a-z0-9_.-]{0,30}\$?", re.ASCII)
_NUMBER = re.compile(r"0|[1-9][0-9]{0,9}", re.ASCII)
_LARGEST = 2**32 - 2  # the one above means "no user" to the kernel


class UserName:
    """A user's name or number, or `auto`; kept as text."""

    @property
    def allowed(self) -> str:
        """What may be written."""
        return "auto, a user's name, or its number"

    def read(self, text: str, tag: str) -> str:
        """Raises ValueError."""
        number = _NUMBER.fullmatch(text) is not None and int(text) <= _LARGEST
        if not number and (tag != "str" or not _NAME.fullmatch(text)):
            raise ValueError(f"{quoted(text)} is no user; allowed is {self.allowed}")
        return text

    def show(self, value: object) -> str:
        """The value as it would be written."""
        return str(value)
