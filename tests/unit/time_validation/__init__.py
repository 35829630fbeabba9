"""Tests of the validation of step times."""
