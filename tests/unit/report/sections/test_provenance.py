from ftbench.report.sections.provenance import environment_section
from tests.factories import environment, record


def test_only_environments_that_records_ran_in():
    used, other = environment(), environment(cores=64)
    there = {one.environment_id: one for one in (used, other)}
    notes, (packages,) = environment_section([record()], there)
    text = "\n".join(notes)
    assert "2 cores" in text
    assert "64 cores" not in text
    assert packages.columns == ("package", "version")
    assert packages.rows == (("torch", "2.13.0"),)
    assert packages.folded


def test_packages_of_two_environments_stand_side_by_side():
    first, second = environment(), environment(packages={"torch": "2.14.0", "peft": "0.21.0"})
    records = [record(), record(replicate=1, environment_id=second.environment_id)]
    there = {one.environment_id: one for one in (first, second)}
    _, (packages,) = environment_section(records, there)
    assert packages.columns == ("package", first.environment_id, second.environment_id)
    assert packages.rows == (("peft", "–", "0.21.0"), ("torch", "2.13.0", "2.14.0"))  # noqa: RUF001
