"""A document as HTML, Markdown, LaTeX, terminal text, data files and pictures."""
