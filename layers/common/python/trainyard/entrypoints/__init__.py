"""What Lambda calls: use cases built from their settings, and batches answered as SQS wants it."""
