"""Entry points of the Lambda functions: wiring of the use cases, and partial batch responses for SQS."""
