"""The service's error pages. Knows only the template: nothing of when a page is shown."""

from __future__ import annotations

# Captured from the service for 404; the documented names of the others fit it.
_TEMPLATE = """\
<?xml version="1.0" encoding="iso-8859-1"?>
<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN"
         "http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">
<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="en" lang="en">
 <head>
  <title>{title}</title>
 </head>
 <body>
  <h1>{title}</h1>
 </body>
</html>
"""
_NAMES = {400: "Missing or Invalid Parameters"}


def error_page(status: int, phrase: str) -> bytes:
    """The XHTML page of a status; `phrase` is the standard one, used where the service has no own name."""
    return _TEMPLATE.format(title=f"{status} - {_NAMES.get(status, phrase)}").encode("iso-8859-1")
