"""Texts of a data set with planted lengths, classes and duplicates, and the steps of a small model."""

import random

import pytest

from ftbench.base.errors import WorkloadError
from ftbench.plan.profile import Workload
from ftbench.plan.sources import resolve_data, resolve_model
from ftbench.records.first_look import TextFacts, TextsRequest
from ftbench.worker.first_look import step_time, texts
from tests.small_model import small_encoder
from tests.unit.worker.data.sources import written

VOCABULARY = [f"w{n}" for n in range(50)]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return small_encoder(tmp_path_factory.mktemp("model") / "small", VOCABULARY)


def rows(lengths):
    """Return texts with these numbers of words, each text another one."""
    drawn = random.Random(0)
    return [" ".join(drawn.choices(VOCABULARY, k=length)) for length in lengths]


def facts(model, path, *, seconds=30.0, **settings):
    asked = {"model": str(model), "dataset": str(path), "eval_size": 1, "drop_duplicates": True}
    workload = Workload.model_validate(asked | settings)
    request = TextsRequest(
        data=resolve_data(workload),
        model=resolve_model(workload),
        device="cpu",
        batch=4,
        seconds=seconds,
    )
    phases = []
    found = texts.main(request.model_dump(mode="json"), lambda progress: phases.append(progress))
    assert phases
    return TextFacts.model_validate(found)


def csv(texts_, labels):
    return "\n".join(["text,label", *(f"{t},{n}" for t, n in zip(texts_, labels, strict=True)), ""])


def test_pools_classes_and_tokens(encoder, tmp_path):
    # 100 of 10 words, and 100 of 98: with special tokens 12 and 100.
    content = csv(rows([10] * 100 + [98] * 100), [n % 4 for n in range(200)])
    found = facts(encoder, written(tmp_path / "t.csv", content))
    assert (found.train_pool, found.eval_pool, found.eval_split) == (160, 40, "from-train")
    assert [(one.name, one.train_pool, one.eval_pool) for one in found.classes] == [
        (str(n), 40, 10) for n in range(4)
    ]
    assert (found.duplicates, found.contradictions) == (0, 0)
    assert (found.tokens.texts, found.tokens.longest) == (160, 100)
    assert found.tokens.median in (12, 100)
    shares = {one.max_length: one for one in found.tokens.by_length}
    short = sum(12 for _ in range(160)) / 160 / 64
    assert 0 < shares[64].cut < 1
    assert shares[64].padding == pytest.approx((1 - shares[64].cut) * (1 - short))
    assert (shares[128].cut, found.limit) == (0, 512)
    assert found.parameters > 10_000
    assert [time.max_length for time in found.times] == [32, 64, 128, 256, 512]
    assert all(time.forward_s > 0 and time.step_s > 0 for time in found.times)
    assert found.load_s > 0


def test_texts_seen_before_are_counted_and_left_out(encoder, tmp_path):
    once = rows([8] * 60)
    labels = [n % 2 for n in range(60)]
    content = csv([*once, *once[:6]], [*labels, *labels[:4], *(1 - n for n in labels[4:6])])
    found = facts(encoder, written(tmp_path / "t.csv", content), seconds=0.0)
    assert (found.duplicates, found.contradictions) == (6, 2)
    assert found.train_pool + found.eval_pool == 60
    assert found.left_out == {"seen before": 6}
    assert found.times == ()  # there is no time for any


def test_a_model_that_reads_less(tmp_path):
    model = small_encoder(tmp_path / "short", VOCABULARY, positions=40)
    content = csv(rows([30] * 40), [n % 2 for n in range(40)])
    found = facts(model, written(tmp_path / "t.csv", content))
    assert found.limit == 40
    assert [time.max_length for time in found.times] == [32]


@pytest.mark.parametrize(("message", "lengths"), [("out of memory", [32, 64]), ("other", None)])
def test_a_length_that_memory_does_not_suffice_for_has_no_time(
    encoder, tmp_path, monkeypatch, message, lengths
):
    at = step_time._Steps.at

    def limited(steps, length):
        if length > 64:
            raise RuntimeError(message)
        return at(steps, length)

    monkeypatch.setattr(step_time._Steps, "at", limited)
    file = written(tmp_path / "t.csv", csv(rows([30] * 40), [n % 2 for n in range(40)]))
    if lengths is None:
        with pytest.raises(RuntimeError, match=message):
            facts(encoder, file)
        return
    assert [time.max_length for time in facts(encoder, file).times] == lengths


def test_words_with_tags_have_no_classes(encoder, tmp_path):
    lines = "".join(
        f'{{"tokens": ["w1", "w2", "w{n}"], "tags": ["O", "B", "O"]}}\n' for n in range(40)
    )
    found = facts(
        encoder,
        written(tmp_path / "t.jsonl", lines),
        task="token-classification",
        text_column="tokens",
        label_column="tags",
    )
    assert (found.classes, found.tokens.median) == ((), 5)
    assert found.times


def test_what_a_run_would_refuse_is_refused(encoder, tmp_path):
    file = written(tmp_path / "t.csv", csv(rows([5] * 40), list(range(40))))
    with pytest.raises(WorkloadError, match="these are not classes"):
        facts(encoder, file)
    with pytest.raises(WorkloadError, match="unknown to the tokenizer"):
        facts(
            encoder, written(tmp_path / "u.csv", csv([f"other{n}" for n in range(18)], [0, 1] * 9))
        )
