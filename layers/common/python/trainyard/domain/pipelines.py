"""The shared pipelines: which one a run needs, and how a deployment gets it."""

from collections.abc import Collection

TRAINING_TYPES = ("TrainingInstanceType", *(f"TrainingInstanceType{number}" for number in range(2, 6)))
"""The parameters of the training instance types, in order of preference. Parameters hold no lists, so there is a
pipeline for each number of types."""

TRANSFORM = "transform"
"""The pipeline of batch transforms."""

TUNING = "tuning"
"""The pipeline of tunings, in which a search stands in the place of the training."""

SPOT_VARIANTS = ("spot", "spot-checkpoints", "checkpoints")
PIPELINES = {
    "": "one training instance type, on demand",
    TRANSFORM: "batch transforms: deploy again",
    TUNING: "tunings: deploy again",
    **{
        str(number): f"{number} training instance types: deploy with InstancePreferences=true, or name one type"
        for number in range(2, len(TRAINING_TYPES) + 1)
    },
    **dict.fromkeys(
        SPOT_VARIANTS, "training on spot capacity: deploy with SpotTraining=true, or set spot: false in the policy"
    ),
}
"""Variant → what runs on it, and how a deployment gets it. Parameters cannot leave a setting out, so there is a
pipeline for each set of settings that SageMaker takes only together."""


def pipeline_variant(parameters: Collection[str]) -> str:
    """Return which pipeline takes these parameters; a key of PIPELINES."""
    if "ModelName" in parameters:
        return TRANSFORM
    if "Trials" in parameters:
        return TUNING
    types = sum(name in parameters for name in TRAINING_TYPES)
    if types > 1:
        return str(types)
    spot, checkpoints = "MaxWaitSeconds" in parameters, "CheckpointUri" in parameters
    return "-".join(["spot"] * spot + ["checkpoints"] * checkpoints)
