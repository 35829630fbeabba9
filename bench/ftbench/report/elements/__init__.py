"""The elements of every report: tables, figures, sections, and words for numbers."""
