"""The Python that runs the step scripts here: with the libraries of SageMaker's image, if they are installed.

The image has Python 3.12 and its own versions of the libraries (requirements/steps.txt); differences from other
versions of pandas and scikit-learn only show with these. `make` creates the environment if it finds Python 3.12;
otherwise, the scripts run with the versions of this environment, and a warning is printed.
"""

import sys
from pathlib import Path

ENVIRONMENT = Path(__file__).parents[2] / ".venv-steps"


def is_images() -> bool:
    """Tell whether the step scripts run with the libraries of SageMaker's image."""
    return (ENVIRONMENT / "ready").exists()


def interpreter() -> str:
    """Return the path of the Python that runs the step scripts."""
    return str(ENVIRONMENT / "bin/python") if is_images() else sys.executable


def described() -> str:
    """Return a sentence about the versions with which the step scripts run."""
    if is_images():
        return "the step scripts run with the versions of SageMaker's image (requirements/steps.txt)"
    return (
        "WARNING: Python 3.12 was not found: the step scripts run with other versions of pandas and scikit-learn "
        "than SageMaker's image has; install Python 3.12 and run make again"
    )
