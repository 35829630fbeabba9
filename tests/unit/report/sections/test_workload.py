from ftbench.records.checkpoint import Checkpoint
from ftbench.records.messages import ClassCount, DataFacts
from ftbench.report.sections.workload import workload_section
from tests.factories import MODEL_SOURCE, cell, data_source, measurement, preparation, record

CLASSES = (
    ClassCount(name="neg", train_pool=300, eval_pool=50, evaluated=6),
    ClassCount(name="pos", train_pool=100, eval_pool=150, evaluated=2),
)


def said(*records, **facts):
    section = workload_section(records or [record()], preparation(data=DataFacts(**facts)))
    return "\n".join(section.paragraphs)


def measured(**fields):
    return record(measurement=measurement(**fields))


def test_the_model_and_the_data_by_their_revision():
    text = said()
    assert f"revision `{MODEL_SOURCE.revision}`" in text
    assert "100 training examples" in text
    assert "50 evaluation examples" in text


def test_every_class_has_its_counts_and_shares():
    section = workload_section([record()], preparation(data=DataFacts(classes=CLASSES)))
    (table,) = section.tables
    assert table.rows == (
        ("neg", "300 (75.0%)", "50 (25.0%)", "6 (75.0%)"),
        ("pos", "100 (25.0%)", "150 (75.0%)", "2 (25.0%)"),
    )
    assert not table.folded
    assert "neg: 6 of 8 (75.0%)" in "\n".join(section.paragraphs)


def test_a_regression_has_no_classes():
    assert workload_section([record()], preparation()).tables == ()
    assert "most frequent" not in said()


def test_examples_on_both_sides_rows_left_out_and_notes():
    text = said(
        evaluated_in_training={16: 0, 32: 1, 64: 3},
        left_out={"without a label": 1200},
        notes=("d.csv: its fields are ...",),
    )
    assert "1 evaluation example is a training example, too, with 32 training examples" in text
    assert "3 evaluation examples are training examples, too, with 64" in text
    assert "16 training examples" not in text
    assert "without a label: 1,200" in text
    assert "d.csv: its fields are ..." in text


def test_facts_of_the_data_are_of_one_data_set_only():
    other = cell().data.model_copy(update={"source": MODEL_SOURCE})
    moved = cell().model_copy(update={"data": other})
    text = said(record(), record(moved), classes=CLASSES)
    assert text.count("Data: ") == 2
    assert "most frequent" not in text
    assert data_source().source != MODEL_SOURCE


def test_what_the_checkpoint_gave():
    checkpoint = Checkpoint(
        loaded_parameters=22_000_000,
        new_parameters=770,
        new=("classifier.weight", "classifier.bias", "a", "b", "c"),
        new_in_body=1,
        reshaped=("head.weight",),
        unused=2,
    )
    text = said(measured(checkpoint=checkpoint), measured(checkpoint=checkpoint))
    assert text.count("Checkpoint of m") == 1
    assert "22,000,000 parameters read" in text
    assert "770 parameters new" in text
    assert "(classifier.weight, classifier.bias, a, b and 1 more)" in text
    assert "1 new tensor outside the head" in text
    assert "head.weight" in text
    assert "2 tensors of the checkpoint not used" in text
    assert "Checkpoint" not in said(measured())


def test_the_attention_that_ran_if_it_is_not_the_cells():
    assert "2 runs with eager" in said(*[measured(attn_implementation="eager")] * 2)
    assert "Attention" not in said(measured(attn_implementation=cell().attn_implementation))
    assert "Attention" not in said(measured())
