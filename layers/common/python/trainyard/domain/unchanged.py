"""What a training depends on, as short texts: a training on the same data with the same settings is left out."""

import json
from collections.abc import Iterable
from hashlib import sha256

from trainyard.domain.algorithms import Algorithm
from trainyard.domain.retraining import Trained
from trainyard.domain.tenants import TrainingSettings

COMPARED_BYTES_MAX = 8 * 1024 * 1024
"""The largest object that is read to find out whether its content is that of the last training: an entity tag of
an object that is encrypted with a KMS key is another one for each upload of the same content."""


def data_digest(objects: Iterable[tuple[str, int]]) -> str:
    """Return what the objects of a training, each by entity tag and size, are known by; in whatever order."""
    return _digest(sorted(objects))


def settings_digest(settings: TrainingSettings, algorithm: Algorithm) -> str:
    """Return what the settings on which a model depends are known by."""
    return _digest(
        [
            *(settings.target, settings.problem.value, settings.split, settings.train_on.value),
            *(algorithm.name, algorithm.code_uri, algorithm.training_image_uri, algorithm.processing_image_uri),
            algorithm.quality_metric,
            sorted(algorithm.chosen(dict(settings.hyperparameters)).items()),
        ]
    )


def basis_of(data: str, settings: str) -> str:
    """Return what a training is started on, from the digests of its data and of its settings."""
    return f"{data}.{settings}"


def has_settings(trained: Trained, settings: str) -> bool:
    """Tell whether a training had the settings of a digest."""
    return trained.basis.partition(".")[2] == settings


def _digest(values: object) -> str:
    return sha256(json.dumps(values).encode()).hexdigest()[:16]
