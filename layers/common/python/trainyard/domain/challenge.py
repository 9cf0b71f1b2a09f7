"""Challenge: a new model is judged beside the one before, its champion, on the same rows.

The pipeline's last script measures (pipeline/steps/challenge.py); here is decided what follows from it.
"""

from dataclasses import dataclass

from trainyard.domain.serving import ServingSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """How a new model stands beside its champion; a gain above 0 means that it is better, by any metric."""

    champion: str
    """The request that trained the champion."""
    not_compared: str = ""
    """Why nothing can be said; the rest is not known then."""
    metric: str = ""
    champion_quality: float = 0
    quality: float = 0
    """Of the new model, on the rows on which both were judged."""
    gain: float = 0
    segment_gain: float | None = None
    """That of the segment which lost most; None where none has rows enough."""


def objection_to_challenger(
    challenge: Challenge | None, settings: ServingSettings, *, live: str | None = None
) -> str | None:
    """Return why a new model does not take its champion's place by itself; None if it does.

    `challenge` is None for the first model of a data set. `live` is the request that trained the newest model that
    answers calls, or is about to; None where none does.
    """
    if challenge is None:
        return None if live is None else "it was not compared with the newest model"
    if challenge.not_compared:
        return f"it was not compared with the model before: {challenge.not_compared}"
    if live is not None and challenge.champion != live:
        return (
            f"it was compared with the model of request {challenge.champion[:8]}, which is not the newest any more"
        )
    if challenge.gain < settings.margin:
        return (
            f"{challenge.metric} {challenge.gain:+.4g} beside the model before, on the same rows: "
            f"{settings.margin:+.4g} is asked for"
        )
    if challenge.segment_gain is not None and challenge.segment_gain < -settings.segment_loss_max:
        return (
            f"{challenge.segment_gain:+.4g} in the segment that loses most: it may lose "
            f"{settings.segment_loss_max:.4g} (evaluation.json names it)"
        )
    return None


def summary(challenge: Challenge) -> str:
    """Return a challenge in a few words."""
    if challenge.not_compared:
        return f"not compared: {challenge.not_compared}"
    of_segment = "" if challenge.segment_gain is None else f", worst segment {challenge.segment_gain:+.4g}"
    return f"{challenge.metric} {challenge.gain:+.4g} beside the model before{of_segment}"
