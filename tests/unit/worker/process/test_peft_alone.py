"""Whether bitsandbytes is imported, in processes of their own."""

import subprocess
import sys

import pytest

pytest.importorskip("bitsandbytes")
pytest.importorskip("peft")


def printed(code):
    program = f"import sys\nfrom ftbench.worker.process.peft_alone import import_peft_alone\n{code}"
    command = (sys.executable, "-c", program)
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def test_peft_is_imported_without_bitsandbytes():
    shown = printed(
        "import_peft_alone()\nfrom transformers import Trainer\n"
        "print('peft' in sys.modules, 'bitsandbytes.nn' in sys.modules)"
    )
    assert shown == ["True", "False"]


def test_what_asks_for_bitsandbytes_gets_it():
    shown = printed(
        "import_peft_alone()\nimport peft, peft.import_utils as utils\n"
        "print(utils.is_bnb_available(), utils.is_bnb_4bit_available())\n"
        "print(peft.helpers.bnb.nn.Linear4bit.__name__)\n"
        "import bitsandbytes\nprint(bitsandbytes.nn.Linear8bitLt.__name__)"
    )
    assert shown[-4:] == ["True", "True", "Linear4bit", "Linear8bitLt"]


def test_the_fork_server_imports_no_bitsandbytes():
    shown = printed(
        "import gc, ftbench.worker.preload\n"
        "print('transformers.trainer' in sys.modules, 'bitsandbytes.nn' in sys.modules, gc.isenabled())"
    )
    assert shown == ["True", "False", "True"]
