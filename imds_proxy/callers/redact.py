"""Text that a caller chose, made fit to be shown: escaped, bounded, secrets taken out. Pure.

Knows nothing of where the text came from or where it goes. It redacts too much rather than too little.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

REDACTED = "***"
CUT = "…"
MAX_CHARACTERS = 2048

_MAX_WORDS = 32
_MAX_WORD = 512
_PASSES = 8

_NAME = (
    r"(?:passw(?:or)?d|passphrase|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credentials?"
    r"|authorization|cookie|signature|session[_-]?id)"
)
_SHORT_NAME = r"(?:(?<![A-Za-z])(?:pwd|pass|auth|sig)(?![A-Za-z]))"
_AFTER_NAME = r"[\w.\[\]-]{0,64}"
_QUOTES = r"[\\\"']{0,3}"
_QUOTED = r"\\?\"[^\"]*\"?|\\?'[^']*'?"

# `Authorization: Basic x`, `"AccessKeySecret": "x"`: up to the next quote, or the end.
_HEADER = re.compile(rf"({_NAME}{_AFTER_NAME}{_QUOTES}\s{{0,8}}:(?!//)\s{{0,8}})({_QUOTED}|[^\"']+)", re.I)
# `TOKEN=x`, `--password=x`, `access_token=x&`: up to a blank, a quote or an ampersand ...
_ASSIGNED = re.compile(
    rf"((?:{_NAME}|{_SHORT_NAME}){_AFTER_NAME}{_QUOTES}\s{{0,8}}=\s{{0,8}})({_QUOTED}|[^\s\"'&]+)", re.I
)
# ... but a word that is one assignment as a whole holds nothing else.
_WHOLE_ASSIGNED = re.compile(rf"(-{{0,2}}[\w.-]*(?:{_NAME}|{_SHORT_NAME}){_AFTER_NAME}=)(.+)", re.I | re.S)
_OPTION = re.compile(rf"--?(?!no-)[\w-]{{0,64}}(?:{_NAME}|{_SHORT_NAME})[\w-]{{0,64}}", re.I)
_INLINE_OPTION = re.compile(
    rf"((?<!\S)--?(?!no-)[\w-]{{0,64}}(?:{_NAME}|{_SHORT_NAME})[\w-]{{0,64}}\s{{1,8}})({_QUOTED}|[^\s\"']+)",
    re.I,
)
_SCHEME = re.compile(r"((?:bearer|basic|digest)\s{1,8})[^\s\"']+", re.I)
_USERINFO = re.compile(r"(://)[^/\s\"'@]*(?:@[^/\s\"'@]*)*@")
_QUERY = re.compile(r"(://[^\s\"'?#]*\?)[^\s\"'#]+")
_KNOWN_SHAPES = re.compile(
    r"(?:LTAI|STS\.|CAIS|AKIA|ASIA|gh[pousr]_|github_pat_|glpat-|xox[abeprs]-|eyJ|sk-)[A-Za-z0-9._/+=-]{8,}"
)
_PRIVATE_KEY = re.compile(r"(-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----).*", re.S)

# Programs whose one-letter option is a password, and that letter; attached (`-psecret`) or the next word.
_PASSWORD_LETTERS = (
    (re.compile(r"(?:^|[/\s])(?:mysql\w*|mariadb[\w-]*|sshpass|mongo\w*)(?:\s|$)"), "p"),
    (re.compile(r"(?:^|[/\s])redis-cli(?:\s|$)"), "a"),
    (re.compile(r"(?:^|[/\s])ldap\w+(?:\s|$)"), "w"),
    (re.compile(r"(?:^|[/\s])curl(?:\s|$)"), "b"),
)
# `-p` alone asks mysql for a password: then the next word is a database's name.
_ONLY_ATTACHED = re.compile(r"(?:^|[/\s])(?:mysql\w*|mariadb[\w-]*)(?:\s|$)")
# `-u name:password`; a name alone, as after `sudo -u`, is no secret.
_USER_OPTION = re.compile(r"--(?:proxy-)?user|-[A-Za-z]{0,8}[uU]")
_NAME_AND_PASSWORD = re.compile(r"[^:%]*[:%].*", re.S)
_INLINE_USER = re.compile(r"((?<!\S)(?:-[uU]\s{0,8}|--(?:proxy-)?user[\s=]{1,8})[\"']?)[^\s\"':]+:[^\s\"']+")


def safe_text(raw: bytes | str, limit: int = _MAX_WORD) -> str:
    r"""The text on one line, without control, formatting or undecodable characters, at most `limit` long.

    What may not be shown becomes `\xNN` or `\uNNNN`; a backslash stays itself, so that doing it twice
    changes nothing. What is too long ends in an ellipsis.
    """
    return _cut(escaped(raw if len(raw) <= 4 * limit else raw[: 4 * limit]), limit)


def escaped(raw: bytes | str) -> str:
    r"""Like `safe_text`, without a bound: names that must stay distinct are not cut."""
    text = raw.decode("utf-8", "surrogateescape") if isinstance(raw, bytes) else raw
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escape(character) for character in text)


def safe_command_line(words: Sequence[bytes | str], limit: int = MAX_CHARACTERS) -> tuple[str, ...]:
    """The words of a command line: escaped, secrets replaced by `***`, at most 32 words and `limit`
    characters together."""
    many = len(words) > _MAX_WORDS
    kept = [safe_text(word, _MAX_WORD) for word in words[: _MAX_WORDS - many]]
    if many:
        kept.append(CUT)
    # Cutting can make a word look like the beginning of something else: repeat until nothing changes.
    for _ in range(_PASSES):
        after = _bounded(_redacted(kept), limit)
        if after == kept:
            break
        kept = after
    return tuple(kept)


def _redacted(words: list[str]) -> list[str]:
    line = " ".join(words)
    letters = "".join(letter for program, letter in _PASSWORD_LETTERS if program.search(line))
    only_attached = bool(_ONLY_ATTACHED.search(line))
    result: list[str] = []
    before = ""
    for word in words:
        if _announces(before, letters, only_attached) or (
            _USER_OPTION.fullmatch(before) and _NAME_AND_PASSWORD.fullmatch(word)
        ):
            result.append(REDACTED)
            before = ""
        else:
            result.append(_redacted_word(word, letters))
            before = word
    return result


def _announces(word: str, letters: str, only_attached: bool) -> bool:
    """Whether the word after this one is a secret."""
    if len(word) == 2 and word[0] == "-" and word[1] in letters:
        return not (word == "-p" and only_attached)
    return bool(_OPTION.fullmatch(word))


def _redacted_word(word: str, letters: str) -> str:
    if " " in word or "=" in word or ":" in word:  # without one of these no text pattern can match
        word = _redacted_text(word)
    word = _KNOWN_SHAPES.sub(REDACTED, word)
    if letters:
        word = re.sub(rf"((?<!\S)-[{letters}])[^\s\"']+", rf"\1{REDACTED}", word)
    return word


def _redacted_text(word: str) -> str:
    word = _PRIVATE_KEY.sub(rf"\1{REDACTED}", word)
    whole = _WHOLE_ASSIGNED.fullmatch(word)
    if whole:
        return whole[1] + REDACTED
    for pattern in (_HEADER, _ASSIGNED, _INLINE_OPTION, _INLINE_USER, _SCHEME):
        word = pattern.sub(rf"\1{REDACTED}", word)
    word = _USERINFO.sub(rf"\1{REDACTED}@", word)
    return _QUERY.sub(rf"\1{REDACTED}", word)


def _bounded(words: list[str], limit: int) -> list[str]:
    left = limit
    result: list[str] = []
    for word in words:
        if left <= 0:
            break
        result.append(_cut(word, min(_MAX_WORD, left)))
        left -= len(result[-1])
    return result


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + CUT


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"  # a byte that was not UTF-8
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
