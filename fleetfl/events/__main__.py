"""Write the page of the event schema to standard output: `python -m fleetfl.events > docs/events.md`."""

import sys

from fleetfl.events.page import markdown

if __name__ == "__main__":
    sys.stdout.write(markdown())
