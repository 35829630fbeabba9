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
