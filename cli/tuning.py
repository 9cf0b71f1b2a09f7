"""Search for the hyperparameters with which a data set's models are best, and choose what trainings begin with."""

import json
from typing import Any

from cli.arguments import Arguments
from cli.deployment import Deployment
from cli.retraining import asked_for, check_data_set
from cli.show import ID_CHARACTERS_MIN, Answer
from cli.text import counted
from cli.values import hyperparameter
from trainyard.application.api.tunings import Tunings
from trainyard.domain.errors import Refused
from trainyard.domain.tuning import Tuned, tuned_values, used

NONE = "none"


def start(deployment: Deployment, arguments: Arguments) -> Answer:
    """Ask for a tuning of a data set."""
    ranges = dict(_range(text) for text in arguments.ranges)
    values: dict[str, Any] = {
        "algorithm": arguments.algorithm,
        "hyperparameters": dict(hyperparameter(text) for text in arguments.hyperparameters),
        "tuning": {
            "trials": arguments.trials,
            "minutes": arguments.minutes or 0,
            "usd": arguments.usd,
            "ranges": ranges,
        },
    }
    return asked_for(deployment, arguments, values)


def _range(text: str) -> tuple[str, dict[str, float]]:
    """Return name and range of a text such as learning_rate=0.01..0.3; raises Refused."""
    name, equals, ends = text.partition("=")
    low, dots, high = ends.partition("..")
    try:
        if not equals or not dots:
            raise ValueError(text)
        return name.strip(), {"low": float(low), "high": float(high)}
    except ValueError as error:
        raise Refused(f"{text!r} is not a range such as learning_rate=0.01..0.3") from error


def show(deployment: Deployment, arguments: Arguments) -> Answer:
    """Show what the last tunings have found, and which values trainings begin with."""
    tenant = deployment.tenant(arguments.tenant_id)
    check_data_set(arguments.data_set)
    tunings = Tunings(store=deployment.store).of(tenant.tenant_id, arguments.data_set)
    return _answer(deployment, arguments, tunings)


def use(deployment: Deployment, arguments: Arguments) -> Answer:
    """Let trainings begin with what a tuning has found, or with nothing of the kind."""
    tenant = deployment.tenant(arguments.tenant_id)
    check_data_set(arguments.data_set)
    tunings = Tunings(store=deployment.store)
    request_id = None
    if arguments.request_id != NONE:
        request_id = _whole(arguments.request_id, tunings.of(tenant.tenant_id, arguments.data_set))
    return _answer(deployment, arguments, tunings.use(tenant.tenant_id, arguments.data_set, request_id))


def _whole(beginning: str, tunings: tuple[Tuned, ...]) -> str:
    """Return the id of the only tuning whose request begins so, else what was given."""
    ids = [each.request_id for each in tunings if each.request_id.startswith(beginning)]
    return ids[0] if len(ids) == 1 and len(beginning) >= ID_CHARACTERS_MIN else beginning


def _answer(deployment: Deployment, arguments: Arguments, tunings: tuple[Tuned, ...]) -> Answer:
    settings = deployment.tenant(arguments.tenant_id).settings_for(arguments.data_set)
    algorithm = deployment.policies.current().algorithm(settings.algorithm)
    begun = used(tunings, settings.algorithm)
    set_by_hand = dict(settings.hyperparameters)
    values = {n: v for n, v in tuned_values(begun, algorithm).items() if n not in set_by_hand}
    return Answer(
        data={
            "tunings": [view(each) for each in reversed(tunings)],
            "used": begun.request_id if begun else None,
            "values": values,
        },
        columns=("REQUEST", "ENDED", "ALGORITHM", "TRIALS", "METRIC", "SCORE", "BEFORE", "USED", "BEST VALUES"),
        rows=[
            (
                each.request_id[:ID_CHARACTERS_MIN],
                f"{each.at:%Y-%m-%d %H:%M}",
                each.algorithm,
                each.trials,
                each.metric,
                *(None if score is None else f"{score:.4f}" for score in (each.score, each.score_before)),
                "yes" if each is begun else "",
                _text(dict(each.values)),
            )
            for each in reversed(tunings)
        ],
        lines=[_summary(arguments, tunings, begun, values)],
    )


def _summary(arguments: Arguments, tunings: tuple[Tuned, ...], begun: Tuned | None, values: dict[str, Any]) -> str:
    where = f"{arguments.tenant_id} {arguments.data_set}"
    if not tunings:
        return f"no tuning has ended with a model yet; start one with: trainyard tuning start {where}"
    if begun is None:
        return f"{counted(len(tunings), 'tuning')}; trainings begin with the values of none of them"
    return f"trainings begin with {_text(values) or 'nothing of it: the settings set the same hyperparameters'}"


def _text(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={json.dumps(value)}" for name, value in values.items())


def view(tuned: Tuned) -> dict[str, Any]:
    """Return a tuning as --json prints it."""
    return {
        "request_id": tuned.request_id,
        "ended_at": tuned.at,
        "algorithm": tuned.algorithm,
        "trials": tuned.trials,
        "metric": tuned.metric,
        "score": tuned.score,
        "score_before": tuned.score_before,
        "values": dict(tuned.values),
        "is_used": tuned.is_used,
    }
