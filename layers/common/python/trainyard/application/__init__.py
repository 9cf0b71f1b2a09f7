"""The use cases, each readable as numbered steps, and the ports through which they act."""
