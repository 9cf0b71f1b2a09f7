"""The simulator: the real use cases over a store in memory, with one thread, a virtual clock and faults."""
