"""What a training depends on, as short texts: a training on the same data with the same settings is left out."""

import json
from collections.abc import Iterable
from hashlib import sha256

from trainyard.domain.algorithms import Algorithm
from trainyard.domain.tenants import TrainingSettings


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
            *(["warm start"] if settings.retraining.warm_start else []),
        ]
    )


def basis_of(data: str, settings: str) -> str:
    """Return what a training is started on, from the digests of its data and of its settings."""
    return f"{data}.{settings}"


def _digest(values: object) -> str:
    return sha256(json.dumps(values).encode()).hexdigest()[:16]
