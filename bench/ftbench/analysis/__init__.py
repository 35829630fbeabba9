"""Pure functions from records to tables. Nothing here reads files, prints or imports torch."""
