import base64
import json

from imds_proxy.emulator.identity import document, pkcs7


def test_the_document_names_the_instance() -> None:
    assert set(json.loads(document())) == {
        "zone-id", "serial-number", "instance-id", "region-id", "private-ipv4", "owner-account-id", "mac",
        "image-id", "instance-type",
    }  # fmt: skip


def test_the_signature_is_base64_in_lines_and_holds_the_document() -> None:
    text = pkcs7("")
    assert b"\n" in text and not text.endswith(b"\n")
    assert document() in base64.b64decode(text)


def test_the_signature_holds_the_audience_and_changes_with_it() -> None:
    quoted = pkcs7("audience=%7B%22aud%22%3A1%7D")
    assert b'"audience":"{\\"aud\\":1}"' in base64.b64decode(quoted)
    assert len({pkcs7(""), pkcs7("audience="), pkcs7("audience=a"), pkcs7("audience=b"), quoted}) == 5
