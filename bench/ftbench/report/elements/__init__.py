"""What every report is made of: tables, figures, sections, and words for numbers."""
