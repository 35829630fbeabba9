from ftbench.report.charts.surfaces import surfaces
from tests import synthetic
from tests.unit.report.charts.made_up import inputs, rows


def test_a_field_is_the_median_of_its_cell_in_the_unit_of_the_title():
    memory, step = surfaces(inputs())
    (field,) = (r for r in rows(memory.drawing) if (r["length"], r["batch"]) == (256, 8))
    assert field["value"] == round(synthetic.peak_bytes(256, 8) / 2**30, 5)
    assert field["text"] == f"{synthetic.peak_bytes(256, 8) / 2**30:.2f}"
    assert "peak RSS (GiB)" in str(memory.drawing.spec)
    (field,) = (r for r in rows(step.drawing) if (r["length"], r["batch"]) == (64, 4))
    assert field["said"] == "117 ms"  # 0.05 + 2.5e-4 * 256 + 2e-7 * 4 * 64**2
    assert field["runs"] == 2


def test_text_on_a_light_field_is_dark():
    memory, _ = surfaces(inputs())
    fields = sorted(rows(memory.drawing), key=lambda row: row["value"])
    assert not fields[0]["light"]
    assert fields[-1]["light"]


def test_other_axes_are_chosen():
    memory, step = surfaces(inputs())
    assert list(memory.drawing.choices) == ["training examples 100", "training examples 400"]
    assert memory.chooser == step.chooser  # one choice for both
    assert rows(memory.drawing) == memory.drawing.choices["training examples 100"]


def test_one_length_has_no_surface():
    assert not list(surfaces(inputs(synthetic.records((64,), (4, 8), (100,)))))
