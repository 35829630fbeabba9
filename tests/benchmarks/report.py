"""How a benchmark says what it found."""


def show(title, figures):
    """Print a title and its figures, a line each."""
    width = max(map(len, figures))
    print(f"\n\n{title}")
    for name, value in figures.items():
        print(f"  {name:<{width}}  {value}")
