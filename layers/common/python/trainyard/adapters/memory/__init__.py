"""The ports without AWS, for tests and simulation; never kinder than the real ones."""
