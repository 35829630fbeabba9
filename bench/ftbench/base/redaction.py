"""Redaction: secrets are removed from everything that is written.

Workers need some secret variables (a hub token opens a gated model), and an error message or a library's log may
repeat one, plain, quoted, escaped or in a URL. Three nets: the values of variables whose names say that they are
secret; the forms of tokens in gitleaks' list, by the package secretscreen; and a few forms of our own that the list
does not have.
"""

from __future__ import annotations

import functools
import html
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, quote_plus

HIDDEN = "[redacted]"
_SECRET_NAME = re.compile(
    r"TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|AUTH(?!OR)|JWT|COOKIE|WEBHOOK|CONN(?:ECTION)?_?STR"
    r"|API_?KEY|(?<!COM)(?<!BY)PASS$|(?:^|_)(?:PWD|PAT|DSN)$|(?:^|_)KEY$|(?:ACCESS|PRIVATE|SIGNING|ENCRYPTION|LICENSE)_?KEY"
)
_PLACES = frozenset({"PWD", "OLDPWD"})  # of the shell: folders
# A value as short as this ("1", "true", "github") is no secret, and is found in every text.
_SHORTEST = 8
# Forms that gitleaks' list lacks, or finds only within an assignment.
_SECRET_TEXT = re.compile(
    r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
    r"|(?i:(?<=\bbearer )|(?<=\bbasic )|(?<=\btoken ))[A-Za-z0-9._~+/=-]{16,}"
    r"|\b(?:hf_[A-Za-z0-9]{20,}|github_pat_\w{20,}|gh[opsur]_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}|xox[abposr]-[A-Za-z0-9-]{10,}|glpat-[\w-]{20,}|AIza[\w-]{35})\b"
    r"|\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*"
)
# Words that may be a token of the list: long, and (as a search of its own, or the time would grow with the square
# of a word's length) with letters and a digit.
_WORD = re.compile(r"[^\s\"'<>]{19,500}[\w=/+-]")
_DIGIT, _LETTER = re.compile(r"\d"), re.compile(r"[A-Za-z]")
_PEM = re.compile(r"-----(BEGIN|END) [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----")
# Characters of a file that are looked at together, and the most of a private key and of a token.
_PART, _LONGEST_KEY, _LONGEST_TOKEN = 1 << 16, 1 << 20, 1 << 13
# What cannot be inside a token: a line that is longer than a part is cut there.
_BETWEEN_TOKENS = re.compile(r"[\s\"'<>,;]")


def secret_values(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the values of the variables whose names say that they are secret, the longest first."""
    values = {
        value
        for name, value in environ.items()
        if _is_secret_name(name) and len(value) >= _SHORTEST and not _is_path(value)
    }
    return sorted(values, key=len, reverse=True)


def _is_secret_name(name: str) -> bool:
    upper = name.upper()
    return upper not in _PLACES and _SECRET_NAME.search(upper) is not None


def _is_path(value: str) -> bool:
    """Return whether a value names an existing file (a socket, a file of credentials)."""
    try:
        return value.startswith("/") and Path(value).exists()
    except (OSError, ValueError):
        return False


def _forms(value: str) -> Iterator[str]:
    """Yield a value as it may stand in a text: plain, escaped for JSON, Python or HTML, or in a URL."""
    yield value
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield repr(value)[1:-1]
    yield html.escape(value)
    yield quote(value, safe="")
    yield quote(value)
    yield quote_plus(value)


def redact(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return a text with every secret in it replaced."""
    forms = {form for value in secret_values(environ) for form in _forms(value)}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, HIDDEN)
    text = _SECRET_TEXT.sub(HIDDEN, text)
    text = _WORD.sub(lambda found: _without_known_token(found.group()), text)
    return _without_keys(text)


@functools.lru_cache(maxsize=1 << 14)  # a log repeats its words
def _without_known_token(word: str) -> str:
    """Return a word, or what hides it if it has the form of a token of gitleaks' list.

    The list's rule for any key with any value is left out: it takes `tokenizer=bert/0123456789` for one.
    """
    if not (_DIGIT.search(word) and _LETTER.search(word)):
        return word
    from secretscreen import audit_pair  # compiles two hundred expressions

    found = audit_pair("text", word)
    reason = "" if found is None else found.reason
    known = reason.startswith("format:") and reason != "format:generic-api-key"
    return HIDDEN if known else word


def _without_keys(text: str) -> str:
    """Return a text without the lines of private keys."""
    if not _PEM.search(text):
        return text
    lines, inside = [], False
    for line in text.splitlines(keepends=True):
        marks = _PEM.findall(line)
        if not inside and not marks:
            lines.append(line)
        if marks and not inside:
            lines.append(f"{HIDDEN}\n")
        inside = marks[-1] == "BEGIN" if marks else inside
    return "".join(lines)


def redact_file(file: Path, environ: Mapping[str, str] = os.environ) -> None:
    """Rewrite a text file without the secrets in it, part by part; a file without secrets is not touched.

    Nor is one that is no regular file with a single name: another name of it may be anybody's.
    """
    try:
        status = file.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            return
        if all(redact(part, environ) == part for part in _parts(file)):
            return
    except OSError:
        return
    clean = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with clean.open("x", encoding="utf-8", errors="surrogateescape", newline="") as stream:
            stream.writelines(redact(part, environ) for part in _parts(file))
        clean.replace(file)
    except OSError:  # a full disk must not leave the old text behind
        file.unlink(missing_ok=True)
        clean.unlink(missing_ok=True)


def _parts(file: Path) -> Iterator[str]:
    """Yield a text file in parts of whole lines, or of a longer line; a private key or a token is in one part."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, encoding="utf-8", errors="surrogateescape", newline="") as stream:
        lines: list[str] = []
        length, inside = 0, False
        while line := stream.readline(_PART):
            lines.append(line)
            length += len(line)
            marks = _PEM.findall(line)
            inside = marks[-1] == "BEGIN" if marks else inside
            if length >= (_LONGEST_KEY if inside else _PART):
                part = "".join(lines)
                end = _end_of_tokens(part)
                yield part[:end]
                lines, length = [part[end:]], len(part) - end
        yield "".join(lines)


def _end_of_tokens(part: str) -> int:
    """Return where a part may be cut: at its end, or before a token that goes on in the rest of its line."""
    if part.endswith("\n"):
        return len(part)
    last = len(part) - 2 * _LONGEST_TOKEN
    found = list(_BETWEEN_TOKENS.finditer(part, max(last, 0), len(part) - _LONGEST_TOKEN))
    return found[-1].end() if found else len(part)
