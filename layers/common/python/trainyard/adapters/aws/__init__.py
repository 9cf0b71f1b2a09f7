"""The ports over AWS; the only place that uses boto3."""
