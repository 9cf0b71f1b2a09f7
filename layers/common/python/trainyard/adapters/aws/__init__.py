"""The ports implemented with AWS; the only package of trainyard that uses boto3."""
