"""The program `hornbook`, run by this Python."""

import signal
import sys
from typing import NoReturn

from ._hornbook import run_command_line


def main() -> NoReturn:
    # Python's own handler would only set a flag, which no computation looks at.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(run_command_line(["hornbook", *sys.argv[1:]]))


if __name__ == "__main__":
    main()
