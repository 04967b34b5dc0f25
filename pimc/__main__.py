"""``python -m pimc`` is ``pimc``."""

from pimc.cli import main

if __name__ == "__main__":
    main()
