"""Names of files that can be imported or loaded."""

import pytest

from ftbench.base.importable import is_shared_library


@pytest.mark.parametrize(
    ("path", "is_one"),
    [
        ("/x/libtorch.so", True),
        ("/x/libc.so.6", True),
        ("/x/_c.cpython-311-x86_64-linux-gnu.so", True),
        ("/x/libz.so.1.2.13", True),
        ("/x/vocab.sorted.json", False),
        ("/my.software/data.bin", False),
        ("/x/lib.so.bak", False),
    ],
)
def test_shared_libraries_are_known_by_the_end_of_their_names(path, is_one):
    assert is_shared_library(path) is is_one
