"""The Python in which the step scripts run here: with the libraries of SageMaker's image, where it can be had.

The image has Python 3.12 and its libraries at versions of its own (requirements/steps.txt); what another pandas or
scikit-learn reads, sorts or stores otherwise shows only there. `make` sets the environment up where it finds
Python 3.12; elsewhere the scripts run with this environment's own versions, and that is said.
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
    """Return in a sentence what the step scripts run with."""
    if is_images():
        return "the step scripts run with the versions of SageMaker's image (requirements/steps.txt)"
    return (
        "WARNING: Python 3.12 was not found: the step scripts run with other versions of pandas and scikit-learn "
        "than SageMaker's image has; install Python 3.12 and run make again"
    )
