from ftbench.report.elements.table import Table


def table(*rows):
    return Table("t", ("cell", "length", "examples", "peak"), rows, (False, True, True, True))


def test_rows_that_differ_only_in_a_column_are_one():
    found = table(
        ("a", "32", "64", "1 GiB"),
        ("b", "64", "64", "2 GiB"),
        ("c", "32", "128", "1 GiB"),
        ("d", "64", "128", "3 GiB"),
    ).merged("examples", counted="cell")
    assert found.rows == (
        ("a +1", "32", "64, 128", "1 GiB"),
        ("b", "64", "64", "2 GiB"),
        ("d", "64", "128", "3 GiB"),
    )


def test_rows_that_differ_elsewhere_stay_apart():
    rows = (("a", "32", "64", "1 GiB"), ("b", "32", "128", "1 GiB"))
    assert table(*rows).merged("examples").rows == rows
    assert table(*rows).merged("no such column").rows == rows


def test_of_many_values_both_ends_are_named():
    rows = tuple(("a", "32", str(2**n), "1 GiB") for n in range(6))
    assert table(*rows).merged("examples").rows == (("a", "32", "1 … 32 (6)", "1 GiB"),)
