"""`python -m ftbench` is the command line."""

from ftbench.cli import main

if __name__ == "__main__":
    main()
