"""What an interpreter was told to run, from its command line. Pure.

Knows nothing of files: the answer is the command line's own word for it, a claim like all of argv.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _Grammar:
    """How one interpreter reads its options, as far as finding the script needs it.

    Letters: `code` run the next word (`-c`), `module` name a module, `valued` take the rest of the word or
    the next one, `attached` take the rest of the word only. `long_valued` options take the next word.
    """

    code: str = ""
    module: str = ""
    valued: str = ""
    attached: str = ""
    long_code: frozenset[str] = frozenset()
    long_valued: frozenset[str] = frozenset()
    stdin: str = ""
    file: str = ""


_PYTHON = _Grammar(code="c", module="m", valued="WXQ", long_valued=frozenset({"--check-hash-based-pycs"}))
_SHELL = _Grammar(code="c", valued="oO", stdin="s", long_valued=frozenset({"--rcfile", "--init-file"}))
_PERL = _Grammar(code="eE", valued="I", attached="mMiFxCDdV")
_RUBY = _Grammar(code="e", valued="IrEC", attached="xWFKTi")
_PHP = _Grammar(code="rBRE", valued="dcztS", file="fF")
_NODE = _Grammar(
    code="ep",
    valued="rC",
    long_code=frozenset({"--eval", "--print"}),
    long_valued=frozenset(
        {
            "--require",
            "--import",
            "--loader",
            "--experimental-loader",
            "--conditions",
            "--env-file",
            "--title",
        }
    ),
)
_JAVA_VALUED = frozenset(
    {
        "-cp", "-classpath", "--class-path", "-p", "--module-path", "--upgrade-module-path", "--add-modules",
        "--add-opens", "--add-exports", "--add-reads", "--limit-modules", "--patch-module", "--source",
        "--enable-native-access", "-d", "--describe-module",
    }
)  # fmt: skip

_GRAMMARS: tuple[tuple[re.Pattern[str], _Grammar], ...] = (
    (re.compile(r"(?:python|pypy)[0-9.]*[a-z]?(?:-dbg)?"), _PYTHON),
    (re.compile(r"(?:ba|da|a|k|mk|z|)sh(?:-static)?|rbash|busybox"), _SHELL),
    (re.compile(r"node(?:js)?[0-9.]*"), _NODE),
    (re.compile(r"perl[0-9.]*"), _PERL),
    (re.compile(r"ruby[0-9.]*"), _RUBY),
    (re.compile(r"php(?:-cgi|-cli)?[0-9.]*"), _PHP),
)
_JAVA = re.compile(r"java")


def script_of(exe: str, words: Sequence[str]) -> str | None:
    """The script's path as given, `-m module`, `-c` (or `-e`, `-r`) for code in the command line, a jar or
    a main class. `exe` is the executable's base name, a fact; `words` include argv[0].

    None for what is no interpreter, for an interactive one and for a script from standard input.
    """
    name = exe.removesuffix(" (deleted)")
    if _JAVA.fullmatch(name):
        return _java(words[1:])
    for pattern, grammar in _GRAMMARS:
        if pattern.fullmatch(name):
            return _scan(grammar, _applet(words)[1:] if name == "busybox" else words[1:])
    return None


def is_interpreter(exe: str) -> bool:
    """Whether an executable of this base name runs what it is told to."""
    return bool(_JAVA.fullmatch(exe)) or any(pattern.fullmatch(exe) for pattern, _ in _GRAMMARS)


def _applet(words: Sequence[str]) -> Sequence[str]:
    """A busybox command line from its applet on, if that is a shell."""
    for start in (0, 1):
        if len(words) > start and words[start].rpartition("/")[2].lstrip("-") in ("sh", "ash"):
            return words[start:]
    return ()


def _scan(grammar: _Grammar, words: Sequence[str]) -> str | None:
    rest = iter(words)
    for word in rest:
        if word == "--":
            return next(rest, None) or None
        if word in ("-", ""):
            return None
        if word.startswith("--"):
            option = word.partition("=")[0]
            if option in grammar.long_code:
                return option
            if word in grammar.long_valued:
                next(rest, None)
            continue
        if word[0] not in "-+" or (word[0] == "+" and grammar is not _SHELL):
            return word
        found, attached = _cluster(grammar, word[1:])
        if found == "file" or found == "module":
            value = attached or next(rest, "")
            return (f"-m {value}" if found == "module" else value) if value else None
        if found == "stdin":
            return None
        if found:
            return found
        if attached is None:
            next(rest, None)
    return None


def _cluster(grammar: _Grammar, letters: str) -> tuple[str, str | None]:
    """One word of letters: what it settled ("" for nothing) and the rest of the word that a letter takes,
    None when it takes the next word instead."""
    shell_takes_next = False
    for index, letter in enumerate(letters):
        rest = letters[index + 1 :]
        if letter in grammar.code:
            return f"-{letter}", rest
        if letter in grammar.stdin:
            return "stdin", rest
        if letter in grammar.module or letter in grammar.file:
            return ("module" if letter in grammar.module else "file"), rest
        if letter in grammar.valued:
            if grammar is _SHELL:
                shell_takes_next = True  # in `-eo pipefail -c`, or `-oc pipefail`, letters go on after it
                continue
            return "", rest or None
        if letter in grammar.attached:
            break
    return "", None if shell_takes_next else ""


def _java(words: Sequence[str]) -> str | None:
    rest = iter(words)
    for word in rest:
        if word in ("-m", "--module"):
            module = next(rest, None)
            return f"-m {module}" if module else None
        if word.startswith("--module="):
            return f"-m {word.partition('=')[2]}"
        if word in _JAVA_VALUED:
            next(rest, None)
        elif not word.startswith("-"):
            return word or None  # `-jar` comes before it or not; an @file of arguments is named as it is
    return None
