"""What every room stands on: errors, units, files that are whole or absent, secrets taken out."""
