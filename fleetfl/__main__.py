"""`python -m fleetfl`: the command line."""

from fleetfl.cli import main

if __name__ == "__main__":
    main()
