import subprocess

import pytest

from tests.terminal import printed, terminal_page

TELL = "python -c 'import os; print(os.get_terminal_size().columns, os.isatty(1))'"
BOLD = r"""python -c 'print("\x1b[1mtold\x1b[0m <b>")'"""


def test_a_command_sees_a_terminal_of_so_many_columns():
    assert printed(TELL, 93).split() == ["93", "True"]


def test_a_command_that_fails_is_no_picture():
    with pytest.raises(subprocess.CalledProcessError):
        printed("python -c 'raise SystemExit(3)'", 80)


def test_a_page_has_the_command_and_its_colours_and_nothing_of_it_is_markup():
    page = terminal_page(BOLD, 80)
    assert "$ python -c" in page
    assert '<span class="r1">told</span> &lt;b&gt;' in page
    assert "http" not in page


def test_a_page_may_have_the_first_lines_only():
    page = terminal_page("python -c 'print(111); print(222); print(333)'", 80, lines=2)
    assert page.count("222") == 2  # in the command, and below it
    assert page.count("333") == 1
