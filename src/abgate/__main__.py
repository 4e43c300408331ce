"""``python -m abgate`` is ``abgate``."""

from abgate.cli import main

# Guarded, because the server's worker processes import the main module anew.
if __name__ == "__main__":
    main()
