"""The libraries of the step scripts, which the command line itself does not need."""

import subprocess

from local.sagemaker.interpreter import interpreter
from trainyard.domain.errors import Refused

MISSING = (
    "the steps need pandas and scikit-learn, which are not installed here: run `make steps` in a checkout (with "
    "Python 3.12, as SageMaker's image has), or `pip install 'trainyard[check]'`"
)


def check_libraries() -> None:
    """Raise Refused where the step scripts cannot run here."""
    command = [interpreter(), "-c", "import sklearn, pandas, joblib"]
    if subprocess.run(command, capture_output=True, check=False).returncode:  # noqa: S603 - our interpreter
        raise Refused(MISSING)
