"""The simulator: the real use cases over memory, one thread, a virtual clock, and all the trouble there is."""
