"""Set before anything is imported: Powertools reads its environment when a handler module is."""

import os

os.environ |= {
    "POWERTOOLS_METRICS_NAMESPACE": "Trainyard",
    "POWERTOOLS_SERVICE_NAME": "trainyard-tests",
    "POWERTOOLS_LOG_LEVEL": "WARNING",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "123456789012",
    "AWS_SECRET_ACCESS_KEY": "testing",
}
for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SAGEMAKER", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
    os.environ.pop(name, None)
