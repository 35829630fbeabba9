"""Reports for people: tables and texts made from the analysis, for the terminal, Markdown and CSV."""
