"""`python -m sim.world OUT.png` writes the contact sheet."""

import sys

from sim.world.sheet import contact_sheet


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m sim.world OUT.png")
    contact_sheet(sys.argv[1])


if __name__ == "__main__":
    main()
