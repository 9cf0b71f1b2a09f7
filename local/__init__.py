"""The local cloud: AWS services on this machine that run the real template, without Docker or an account."""
