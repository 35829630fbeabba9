import html
import json
import os
from urllib.parse import quote, quote_plus

import pytest

from ftbench.base.redaction import HIDDEN, redact, redact_file, secret_values

ENVIRON = {
    "HF_TOKEN": "hf-of-our-own-making",
    "MY_API_KEY": "abcdefgh12345678",
    "DB_PASSWORD": "pass word with spaces",
    "HOME": "/home/somebody",
    "SSH_AUTH_SOCK": "/dev/null",
    "GIT_AUTHOR_NAME": "training",
    "GITHUB_TOKEN": "short",
    "PATH": "/usr/bin",
}


def test_values_of_variables_that_say_they_are_secret():
    assert set(secret_values(ENVIRON)) == {
        "hf-of-our-own-making",
        "abcdefgh12345678",
        "pass word with spaces",
    }


def test_they_are_taken_out_of_a_text_and_the_rest_stays():
    text = "GET https://hub?token=hf-of-our-own-making failed for /home/somebody (abcdefgh12345678)"
    clean = redact(text, ENVIRON)
    assert clean == f"GET https://hub?token={HIDDEN} failed for /home/somebody ({HIDDEN})"


def test_a_secret_inside_another_leaves_no_rest():
    environ = {"A_TOKEN": "12345678", "B_TOKEN": "1234567890"}
    assert redact("1234567890", environ) == HIDDEN


@pytest.mark.parametrize(
    "secret",
    [
        "user:pass@host"[:9],
        "github_pat_" + "a" * 40,
        "hf_" + "a" * 34,
        "ghp_" + "B1" * 18,
        "sk-proj-" + "x" * 40,
        "AKIA" + "ABCD" * 4,
    ],
)
def test_well_known_forms_go_without_a_variable(secret):
    assert secret not in redact(
        f"with https://{secret}@host {secret if ':' not in secret else ''}", {}
    )


def test_an_ordinary_text_is_left_alone():
    text = "loss 0.693, sha256:0123456789abcdef, task-specific head"
    assert redact(text, ENVIRON) == text


def test_files(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"\xff hf-of-our-own-making\n")
    redact_file(log, ENVIRON)
    assert log.read_bytes() == b"\xff " + HIDDEN.encode() + b"\n"
    redact_file(tmp_path / "none", ENVIRON)


@pytest.mark.parametrize(
    "name",
    [
        "PGPASS",
        "DB_PWD",
        "GPG_PASSPHRASE",
        "STRIPE_KEY",
        "SENTRY_DSN",
        "MY_JWT",
        "SLACK_WEBHOOK_URL",
        "AZURE_STORAGE_CONNECTION_STRING",
        "GH_PAT",
        "SESSION_COOKIE",
        "aws_secret_access_key",
    ],
)
def test_names_that_say_that_they_are_secret(name):
    assert secret_values({name: "abcdefgh12345678"})


@pytest.mark.parametrize(
    "name", ["PWD", "OLDPWD", "KEYBOARD", "MONKEYS", "GIT_AUTHOR_NAME", "PASSAGE", "COMPASS_HOME"]
)
def test_names_that_only_look_like_it(name):
    assert secret_values({name: "abcdefgh12345678"}) == []


ODD = 'p\u00e4ss "w<o>rd\\/+&%'


@pytest.mark.parametrize(
    "form", [str, json.dumps, repr, html.escape, quote, quote_plus, lambda s: quote(s, safe="")]
)
def test_a_value_goes_in_every_form_that_a_text_may_have_it_in(form):
    text = f"before {form(ODD)} after"
    clean = redact(text, {"DB_PASSWORD": ODD})
    assert HIDDEN in clean
    assert "rd" not in clean.replace("[redacted]", "").replace("before", "").replace("after", "")


@pytest.mark.parametrize(
    "text",
    [
        "xoxb-123456789012-1234567890123-abcdefghijklmnopqrstuvwx",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
        "glpat-" + "a1B2" * 5,
        "npm_" + "a1B2" * 9,
        "https://hooks.slack.com/services/T00000000/B00000000/a1B2a1B2a1B2a1B2a1B2a1B2",
        "sk-ant-api03-" + "aB1" * 31 + "AA",
        "Authorization: Bearer abcdefghijklmnop1234",
        "authorization: basic dXNlcjpwYXNzd29yZA==",
    ],
)
def test_tokens_of_well_known_services_go_wherever_they_stand(text):
    secret = text.split()[-1]
    for around in ("said {}.", 'url="{}"', "{}", "{{'token': '{}'}}"):
        assert secret not in redact(around.format(text), {})


@pytest.mark.parametrize(
    "text",
    [
        "sha256:" + "0123456789abcdef" * 4,
        "/home/somebody/tokenizer=bert/0123456789abcdef/model.safetensors",
        "bert.encoder.layer.11.attention.output.LayerNorm.weight",
        "023d50180fe5-r0.parquet at https://huggingface.co/docs/transformers/en/index",
        "<transformers.models.bert.BertModel object at 0x7fb67be7a840>",
    ],
)
def test_what_a_log_is_full_of_stays(text):
    assert redact(text, {}) == text


def test_private_keys_go_line_by_line(tmp_path):
    key = "\n".join(
        ["-----BEGIN RSA PRIVATE KEY-----", *["abcd" * 16] * 2000, "-----END RSA PRIVATE KEY-----"]
    )
    log = tmp_path / "log"
    log.write_text(f"first\n{key}\nlast\n")
    redact_file(log, {})
    assert log.read_text() == f"first\n{HIDDEN}\nlast\n"


def test_a_long_log_is_read_part_by_part(tmp_path):
    log = tmp_path / "log"
    log.write_text("an ordinary line of a log\n" * 40_000 + "abcdefgh12345678\n")
    redact_file(log, ENVIRON)
    text = log.read_text()
    assert text.endswith(f"{HIDDEN}\n")
    assert text.count("\n") == 40_001


@pytest.mark.parametrize("before", [65_530, 65_536 - len("abcdefgh12345678") // 2, 131_060])
def test_a_secret_is_found_wherever_a_long_line_is_cut(tmp_path, before):
    log = tmp_path / "log"
    filler = ("step=1 " * before)[:before]
    token = "hf_" + "aB3" * 12
    log.write_text(f"{filler} abcdefgh12345678 {token} {filler}\n")
    redact_file(log, ENVIRON)
    assert log.read_text() == f"{filler} {HIDDEN} {HIDDEN} {filler}\n"


def test_a_long_line_of_one_word_is_read_through(tmp_path):
    log = tmp_path / "log"
    log.write_text("x" * 300_000 + "\nabcdefgh12345678\n")
    redact_file(log, ENVIRON)
    assert log.read_text() == "x" * 300_000 + f"\n{HIDDEN}\n"


def test_a_file_with_a_second_name_is_left_alone(tmp_path):
    """Its content may be anybody's, and is not of this run."""
    other = tmp_path / "other"
    other.write_text("abcdefgh12345678\n")
    (tmp_path / "log").hardlink_to(other)
    redact_file(tmp_path / "log", ENVIRON)
    assert other.read_text() == "abcdefgh12345678\n"


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "log")
    redact_file(tmp_path / "log", ENVIRON)
