"""What runs cost, to whom it is told, and what a transaction left to be done after it."""
