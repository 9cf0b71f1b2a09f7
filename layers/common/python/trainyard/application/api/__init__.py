"""What the HTTP API shows and does."""
