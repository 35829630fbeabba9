"""A tokenizer with a token for each letter of the alphabet, and for padding, the end of text and unknown words."""

import string

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SPECIAL = {"pad_token": "[PAD]", "eos_token": "[END]", "unk_token": "[?]", "mask_token": "[MASK]"}


@pytest.fixture
def word_tokenizer():
    words = [*SPECIAL.values(), *string.ascii_lowercase]
    made = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=SPECIAL["unk_token"])
    )
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, padding_side="right", **SPECIAL)
