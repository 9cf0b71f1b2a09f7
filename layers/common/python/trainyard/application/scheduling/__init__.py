"""From an upload to the end of its run: who may train, when, and what became of it."""
