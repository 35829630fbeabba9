"""Predicted step times beside published ones: `nox -s validate-time -- CELLS.csv --out DIR`."""
