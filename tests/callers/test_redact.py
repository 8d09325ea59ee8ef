from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from imds_proxy.callers.redact import MAX_CHARACTERS, escaped, safe_command_line, safe_text

SECRET = "hunter2secretvalue"

LINES = [
    ["app", f"--password={SECRET}"],
    ["app", "--password", SECRET],
    ["app", "--db-password", SECRET],
    ["app", f"-password:{SECRET}"],
    ["app", "--api-key", SECRET, "run"],
    ["env", f"TOKEN={SECRET}", "run"],
    ["env", f"ALIBABA_CLOUD_ACCESS_KEY_SECRET={SECRET} with blanks"],
    ["env", f"AccessKeySecret={SECRET}"],
    ["java", f"-Dspring.datasource.password={SECRET}", "-jar", "a.jar"],
    ["mysql", f"-p{SECRET}", "db"],
    ["/usr/bin/mysqldump", "-u", "root", f"-p{SECRET}"],
    ["sudo", "mysql", f"-p{SECRET}"],
    ["sshpass", "-p", SECRET, "ssh", "host"],
    ["redis-cli", "-a", SECRET],
    ["curl", "-u", f"name:{SECRET}", "http://h/"],
    ["curl", "-sSu", f"name:{SECRET}", "http://h/"],
    ["curl", f"-uname:{SECRET}", "http://h/"],
    ["curl", f"--user=name:{SECRET}", "http://h/"],
    ["curl", "-H", f"Authorization: Bearer {SECRET}", "http://h/"],
    ["curl", "-H", f"X-aliyun-ecs-metadata-token: {SECRET}", "http://100.100.100.200/"],
    ["curl", f"-HX-aliyun-ecs-metadata-token:{SECRET}", "http://100.100.100.200/"],
    ["curl", f"--header=authorization: {SECRET}"],
    ["curl", "-b", f"sid={SECRET}"],
    [f"agent/CAIS{SECRET}"],  # a security token of the provider's
    ["curl", "-H", f"Cookie: a={SECRET}; b={SECRET}"],
    ["curl", f"https://name:{SECRET}@host/path"],
    ["curl", f"https://na@me:{SECRET}@host/path"],
    ["curl", f"https://{SECRET}@host"],
    ["curl", f"http://host/path?x={SECRET}&y={SECRET}#z"],
    ["curl", "-d", f'{{"password": "{SECRET}", "user": "x"}}'],
    ["sh", "-c", f'curl -H "X-aliyun-ecs-metadata-token: {SECRET}" http://100.100.100.200/'],
    ["sh", "-c", f"TOKEN={SECRET} exec app"],
    ["sh", "-c", f"mysql -p{SECRET} db"],
    ["sh", "-c", f"app --password {SECRET} --verbose"],
    ["sh", "-c", f"curl -u name:{SECRET} http://h/"],
    ["sh", "-c", f'echo "{{\\"token\\": \\"{SECRET}\\"}}"'],
    ["app", f"LTAI{SECRET}"],
    ["app", f"ghp_{SECRET}"],
    ["app", f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}"],
    ["app", f"pass={SECRET}"],
    ["app", f"Server=x;Uid=y;Pwd={SECRET};"],
]


@pytest.mark.parametrize("words", LINES, ids=" ".join)
def test_a_secret_is_not_shown(words: list[str]) -> None:
    shown = " ".join(safe_command_line(words))
    assert SECRET not in shown
    assert "***" in shown


@pytest.mark.parametrize(
    "words",
    [
        ["python3", "/opt/app/collect.py", "--interval", "5"],
        ["curl", "-s", "http://100.100.100.200/latest/meta-data/instance-id"],
        ["java", "-Xmx1g", "-cp", "/a.jar:/b.jar", "com.example.Main"],
        ["sudo", "-u", "postgres", "psql"],
        ["mysql", "-p", "database"],
        ["mkdir", "-p", "/srv/data"],
        ["nginx: worker process"],
        ["/usr/bin/auth-service", "--listen", "0.0.0.0:80"],
        ["ls", "C:\\dir"],
    ],
    ids=" ".join,
)
def test_what_is_no_secret_stays_as_it_is(words: list[str]) -> None:
    assert safe_command_line(words) == tuple(words)


def test_the_path_of_a_url_stays_readable() -> None:
    shown = safe_command_line(["curl", "http://u:p@100.100.100.200/latest/meta-data?a=b#c"])
    assert shown[1] == "http://***@100.100.100.200/latest/meta-data?***#c"


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"a\nb", "a\\x0ab"),
        (b"\x1b[31mred", "\\x1b[31mred"),
        ("\u202egpj.exe".encode(), "\\u202egpj.exe"),
        (b"\xff\xfe", "\\xff\\xfe"),
        ("\u2028".encode(), "\\u2028"),
        ("\U000e0041".encode(), "\\U000e0041"),
        ("größe 文件".encode(), "größe 文件"),
        ("\ud800", "\\ud800"),
        (b"a\\b", "a\\b"),
    ],
)
def test_what_could_move_a_terminal_is_escaped(raw: bytes | str, shown: str) -> None:
    assert safe_text(raw) == shown


def test_names_that_must_stay_distinct_are_not_cut() -> None:
    assert len(escaped("u" * 10_000)) == 10_000


def test_a_command_line_of_a_mebibyte_is_cut_and_says_so() -> None:
    (shown,) = safe_command_line([b"x" * 2**20])
    assert len(shown) == 512
    assert shown.endswith("…")
    many = safe_command_line(["word"] * 1000)
    assert len(many) == 32
    assert many[-1] == "…"


PIECES = [
    *(
        "--password",
        "token",
        "=",
        ":",
        "://",
        "@",
        "?",
        "&",
        '"',
        "'",
        "\\",
        " ",
        "-u",
        "-p",
        "mysql",
        "curl",
    ),
    *("Authorization", "bearer ", "***", "…", "x", "LTAI", "eyJ", "abcdefghij", "-", "#", "/"),
]

WORDS = st.lists(
    st.one_of(
        st.binary(max_size=60),
        st.text(max_size=700),
        st.sampled_from([word for line in LINES for word in line]),
        st.lists(
            st.sampled_from(PIECES),
            max_size=30,
        ).map("".join),
    ),
    max_size=40,
)


@given(WORDS)
@example(["Authorization: " + "x" * 495 + "y" * 40])
def test_any_command_line_is_printable_bounded_and_unchanged_by_a_second_pass(
    words: list[bytes | str],
) -> None:
    shown = safe_command_line(words)
    assert all(word.isprintable() for word in shown)
    assert len(shown) <= 32
    assert sum(map(len, shown)) <= MAX_CHARACTERS
    assert safe_command_line(shown) == shown


@given(st.one_of(st.binary(), st.text()), st.integers(1, 100))
def test_any_text_is_printable_bounded_and_unchanged_by_a_second_pass(raw: bytes | str, limit: int) -> None:
    shown = safe_text(raw, limit)
    assert shown.isprintable()
    assert len(shown) <= limit
    assert safe_text(shown, limit) == shown


@given(st.text(alphabet="abcXYZ0189", min_size=16, max_size=40), st.sampled_from(LINES[:20]))
def test_no_value_of_a_secret_is_shown(value: str, words: list[str]) -> None:
    shown = safe_command_line([word.replace(SECRET, value) for word in words])
    assert value not in " ".join(shown)
