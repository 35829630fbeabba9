"""Redaction: the values of secret environment variables are removed from everything that is written.

Workers need some of these variables (a hub token opens a gated model), and an error message or a library's
log may repeat one. Records, logs and reports never contain them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

HIDDEN = "[redacted]"
_SECRET_NAME = re.compile(
    r"TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|AUTH(?!OR)"
)
# A value as short as this ("1", "true", "github") is no secret, and is found in every text.
_SHORTEST = 8
# Recognised by their first characters even if no variable has them: hub, GitHub, OpenAI-like, AWS ids.
_SECRET_TEXT = re.compile(
    r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)|\bgithub_pat_\w{20,}"
    r"|\b(?:hf_[A-Za-z0-9]{20,}|gh[opsu]_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|AKIA[A-Z0-9]{16})\b"
)


def secret_values(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the values of the variables whose names say that they are secret, the longest first."""
    values = {
        value
        for name, value in environ.items()
        if _SECRET_NAME.search(name.upper()) and len(value) >= _SHORTEST and not _is_path(value)
    }
    return sorted(values, key=len, reverse=True)


def _is_path(value: str) -> bool:
    """Return whether a value names an existing file (a socket, a file of credentials)."""
    try:
        return value.startswith("/") and Path(value).exists()
    except (OSError, ValueError):
        return False


def redact(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return a text with every secret value in it replaced."""
    for value in secret_values(environ):
        text = text.replace(value, HIDDEN)
    return _SECRET_TEXT.sub(HIDDEN, text)


def redact_file(file: Path, environ: Mapping[str, str] = os.environ) -> None:
    """Rewrite a text file without the secrets in it; a file without secrets is not touched."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(descriptor, encoding="utf-8", errors="surrogateescape") as stream:
            text = stream.read()
    except OSError:
        return
    clean = redact(text, environ)
    if clean == text:
        return
    try:
        file.unlink()  # not rewritten in place: a full disk must not leave the old text behind
        file.write_text(clean, encoding="utf-8", errors="surrogateescape")
    except OSError:
        file.unlink(missing_ok=True)
