from imds_proxy.emulator.pages import error_page


def test_the_page_of_a_missing_item_is_the_captured_one() -> None:
    page = error_page(404, "Not Found")
    assert len(page) == 345
    assert page == (
        b'<?xml version="1.0" encoding="iso-8859-1"?>\n'
        b'<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN"\n'
        b'         "http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">\n'
        b'<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="en" lang="en">\n'
        b" <head>\n  <title>404 - Not Found</title>\n </head>\n"
        b" <body>\n  <h1>404 - Not Found</h1>\n </body>\n</html>\n"
    )


def test_the_page_of_a_bad_token_request_has_the_documented_name() -> None:
    assert b"<h1>400 - Missing or Invalid Parameters</h1>" in error_page(400, "Bad Request")
