"""From an upload to the end of its run: intake, admission, starts and results."""
