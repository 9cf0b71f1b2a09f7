"""Run the command line: python -m cli, or ./trainyard in a checkout."""

import sys

if __name__ == "__main__":
    try:
        from cli.app import main

        sys.exit(main())
    except KeyboardInterrupt:  # while it is being imported
        sys.exit(130)
