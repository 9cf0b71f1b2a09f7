"""What callers of the HTTP API send."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from trainyard.application.scheduling.pauses import Pausable
from trainyard.contracts.api import DataSet
from trainyard.contracts.events import Moment
from trainyard.contracts.overrides import OverridesValues
from trainyard.domain.aliases import Environment
from trainyard.domain.approval_links import COMMENT_LENGTH_MAX, Decision
from trainyard.domain.requests import PRIORITY_MAX

IdempotencyKey = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,64}$"),
    Field(description="Calls with the same key within a day, and the same body, ask for one thing"),
]
FileName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$"),
    Field(description="Of the file below its data set; its ending says how it is read", examples=["churn.csv"]),
]
SizeBytes = Annotated[int, Field(ge=0, le=2**53, strict=True, description="Of the file", examples=[5_000_000])]
UploadId = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=r"^[\x21-\x7e]+$")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TrainingBody(_Body):
    """A training on what has been uploaded to a data set before."""

    data_set: DataSet
    ready_by: Annotated[Moment | None, Field(description="When the model is to be ready")] = None
    priority: Annotated[int | None, Field(ge=0, le=PRIORITY_MAX, strict=True)] = None
    overrides: Annotated[
        OverridesValues | None,
        Field(description="Of this training alone, in place of the settings of its data set"),
    ] = None
    force: Annotated[
        bool, Field(strict=True, description="Train although neither data nor settings have changed")
    ] = False


class QuoteBody(_Body):
    """A file that is not uploaded yet."""

    data_set: DataSet
    name: FileName
    size_bytes: SizeBytes


class UploadBody(_Body):
    """A file that is going to be uploaded."""

    data_set: DataSet
    name: FileName
    size_bytes: SizeBytes


class PartBody(_Body):
    """A part that was put."""

    number: Annotated[int, Field(ge=1, le=10_000, strict=True)]
    etag: Annotated[
        str,
        StringConstraints(min_length=1, max_length=100, pattern=r"^[\x21-\x7e]+$"),
        Field(description="The header ETag of the answer to its PUT"),
    ]


class CompletionBody(_Body):
    """An upload whose parts have all been put."""

    data_set: DataSet
    name: FileName
    parts: Annotated[list[PartBody], Field(min_length=1, max_length=100)]


class AbortBody(_Body):
    """An upload whose parts are to be discarded."""

    data_set: DataSet
    name: FileName


class DecisionBody(_Body):
    """A decision about a model."""

    decision: Decision
    reason: Annotated[str, StringConstraints(max_length=COMMENT_LENGTH_MAX)] = ""


class ResumeBody(_Body):
    """All of the service, or a tier or a tenant by its name."""

    what: Pausable
    name: Annotated[str | None, StringConstraints(min_length=1, max_length=40)] = None


class PauseBody(ResumeBody):
    """What is to be paused, and why."""

    reason: Annotated[
        str,
        StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$"),
        Field(description="Shown to whoever looks at what is paused"),
    ] = ""


class ExpediteBody(_Body):
    """Why a request is to be first in its tier."""

    reason: Annotated[
        str,
        StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$"),
        Field(description="Stored with the request, and shown until it is admitted"),
    ]


class PolicyBody(_Body):
    """A policy that is not in force."""

    text: Annotated[str, StringConstraints(min_length=1, max_length=300_000), Field(description="YAML")]


class PolicyChangeBody(PolicyBody):
    """A policy that is to be put in force."""

    after: Annotated[int, Field(ge=0, le=2**31, strict=True, description="The version that it was compared with")]
    note: Annotated[
        str,
        StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$"),
        Field(description="The reason, shown in the history"),
    ] = ""
    force: Annotated[bool, Field(description="Although the next uploads of tenants would be refused")] = False


class RowsBody(_Body):
    """Rows to predict."""

    rows: Annotated[str, StringConstraints(min_length=1), Field(description="CSV with headers, or JSON lines")]
    content_type: Literal["text/csv", "application/jsonlines"] = "text/csv"
    environment: Environment = Environment.PRODUCTION
    key: Annotated[
        str | None,
        StringConstraints(min_length=1, max_length=256),
        Field(description="Calls with the same key are answered by the same version while there is a canary"),
    ] = None
