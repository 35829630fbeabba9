"""The ground floor: errors, units, files that are whole or absent, and the removal of secrets."""
