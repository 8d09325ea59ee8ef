from imds_proxy.emulator.answers import PLAIN, Answer, error, head, phrase


def test_a_head_is_small_and_fixed() -> None:
    assert head(Answer(200, b"abc"), 0, close=False) == (
        b"HTTP/1.1 200 OK\r\nServer: imds-emulator\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
        b"Content-Type: text/plain\r\nContent-Length: 3\r\n\r\n"
    )


def test_a_head_says_that_the_connection_closes_and_carries_further_headers() -> None:
    data = head(Answer(429, b"", PLAIN, ("Retry-After: 2",)), 0, close=True)
    assert data.endswith(b"Content-Length: 0\r\nRetry-After: 2\r\nConnection: close\r\n\r\n")


def test_another_framing_takes_the_place_of_the_length() -> None:
    data = head(Answer(200, b"abc"), 0, close=False, framing="Transfer-Encoding: chunked")
    assert b"Transfer-Encoding: chunked" in data and b"Content-Length" not in data


def test_an_error_is_an_html_page_of_its_status() -> None:
    answer = error(405, "Allow: PUT")
    assert (answer.status, answer.content_type, answer.headers) == (405, "text/html", ("Allow: PUT",))
    assert b"<title>405 - Method Not Allowed</title>" in answer.body


def test_a_status_without_a_phrase_has_one() -> None:
    assert phrase(599) == "Unknown"
