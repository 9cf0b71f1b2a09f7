"""The tasks of the tenants' state machines, by the names that statemachines/*.asl.yaml give them."""

from collections.abc import Callable, Mapping

from trainyard.application.tenancy.tenants import Answer, Step
from trainyard.domain.errors import Refused
from trainyard.domain.tenants import Change
from trainyard.entrypoints import bootstrap

Task = Callable[[Step], Answer]


def task_of(change: Change, name: str) -> Task:
    """Return what carries a step out; raises Refused if the change has no step of that name."""
    if name == "Failed":
        return bootstrap.tenant_changes().note_failure
    if name == "Drift":
        return bootstrap.onboarding().drift
    match change:
        case Change.MOVE:
            tasks = _moving()
        case Change.DELETE:
            tasks = _leaving()
        case _:
            tasks = _onboarding()
    if name not in tasks:
        raise Refused(f"{change} has no step {name!r}; its steps are {', '.join(tasks)}")
    return tasks[name]


def _onboarding() -> Mapping[str, Task]:
    onboarding = bootstrap.onboarding()
    return {
        "Record": onboarding.record,
        "Check": onboarding.check,
        "Storage": onboarding.storage,
        "Role": onboarding.role,
        "ModelGroup": onboarding.model_group,
        "Schedule": onboarding.schedule,
        "Limits": onboarding.limits,
        "Activate": onboarding.activate,
        "Update": onboarding.update,
        "Suspend": onboarding.suspend,
        "Resume": onboarding.resume,
    }


def _moving() -> Mapping[str, Task]:
    moving = bootstrap.moving()
    return {
        "Begin": moving.begin,
        "AwaitRuns": moving.await_runs,
        "Storage": moving.storage,
        "Copy": moving.copy,
        "CopyLast": moving.copy_last,
        "Verify": moving.verify,
        "Switch": moving.switch,
        "Resubmit": moving.resubmit,
        "CatchUp": moving.catch_up,
        "RemoveOld": moving.remove_old,
        "Finish": moving.finish,
    }


def _leaving() -> Mapping[str, Task]:
    leaving = bootstrap.leaving()
    return {
        "Inventory": leaving.inventory,
        "Begin": leaving.begin,
        "Cancel": leaving.cancel,
        "StopRuns": leaving.stop_runs,
        "Endpoints": leaving.endpoints,
        "Models": leaving.models,
        "Schedule": leaving.schedule,
        "Objects": leaving.objects,
        "Storage": leaving.storage,
        "Role": leaving.role,
        "Forget": leaving.forget,
    }
