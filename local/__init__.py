"""The local cloud: an AWS on this machine that runs the real template, without Docker or an account."""
