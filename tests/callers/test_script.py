from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.callers.script import script_of

CASES = [
    ("python3.11", "python3 /opt/a.py x", "/opt/a.py"),
    ("python3", "python3 -u -W ignore -X dev a.py", "a.py"),
    ("python3", "python3 -Wignore -Bu a.py", "a.py"),
    ("python3", "python3 -m http.server 80", "-m http.server"),
    ("python3", "python3 -Imhttp.server", "-m http.server"),
    ("python3", "python3 -c code arg", "-c"),
    ("python3", "python3 -uc code", "-c"),
    ("python3", "python3 --check-hash-based-pycs always a.py", "a.py"),
    ("python3", "python3 -- -a.py", "-a.py"),
    ("python3", "python3 -", None),
    ("python3", "python3", None),
    ("python3", "python3 -m", None),
    ("python3.11 (deleted)", "python3 a.py", "a.py"),
    ("pypy3", "pypy3 a.py", "a.py"),
    ("bash", "bash /x.sh", "/x.sh"),
    ("bash", "/bin/bash -eux x.sh", "x.sh"),
    ("bash", "bash -eo pipefail x.sh", "x.sh"),
    ("bash", "bash -eo pipefail -c code", "-c"),
    ("bash", "bash +o posix x.sh", "x.sh"),
    ("bash", "bash --rcfile f --norc x.sh", "x.sh"),
    ("bash", "bash -s a b", None),
    ("bash", "-bash", None),
    ("dash", "sh -c code", "-c"),
    ("busybox", "sh /x.sh", "/x.sh"),
    ("busybox", "busybox ash -c code", "-c"),
    ("busybox", "wget http://h", None),
    ("node", "node --require x.js app.js", "app.js"),
    ("node", "node --max-old-space-size=1 -r x app.js", "app.js"),
    ("node", "node -e code", "-e"),
    ("node", "node --eval code", "--eval"),
    ("node", "node --print=code", "--print"),
    ("nodejs", "nodejs app.js", "app.js"),
    ("perl", "perl -I lib -Mstrict -w x.pl", "x.pl"),
    ("perl5.36.0", "perl -lne code", "-e"),
    ("perl", "perl -pi.bak -e code", "-e"),
    ("ruby", "ruby -I lib -rjson x.rb", "x.rb"),
    ("ruby3.1", "ruby -e code", "-e"),
    ("php8.2", "php -d memory_limit=1 x.php", "x.php"),
    ("php", "php -f x.php", "x.php"),
    ("php", "php -r code", "-r"),
    ("java", "java -Xmx1g -cp a:b com.example.Main x", "com.example.Main"),
    ("java", "java -jar -Dx=y /app.jar x", "/app.jar"),
    ("java", "java -m mod/Main", "-m mod/Main"),
    ("java", "java --module=mod", "-m mod"),
    ("java", "java --add-opens a/b=ALL x.Main", "x.Main"),
    ("java", "java @args x", "@args"),
    ("curl", "curl http://h", None),
    ("pythonish", "python a.py", None),
    ("mybash", "bash a.sh", None),
]


@pytest.mark.parametrize(("exe", "line", "script"), CASES, ids=[f"{exe}: {line}" for exe, line, _ in CASES])
def test_the_script_of_an_interpreter_is_found(exe: str, line: str, script: str | None) -> None:
    assert script_of(exe, line.split()) == script


def test_a_program_that_calls_itself_an_interpreter_is_none() -> None:
    assert script_of("evil", ["python3", "/usr/bin/trusted.py"]) is None


@given(
    st.sampled_from(sorted({exe for exe, _, _ in CASES})),
    st.lists(st.one_of(st.text(max_size=6), st.sampled_from(["-c", "-m", "-", "--", "-o", "-jar", "-e"]))),
)
def test_any_command_line_gives_an_answer(exe: str, words: list[str]) -> None:
    script = script_of(exe, words)
    assert script is None or script != ""
