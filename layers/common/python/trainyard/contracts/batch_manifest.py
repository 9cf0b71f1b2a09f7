"""The object that ends a batch of files and lists them: `_manifest.json`, which a tenant writes."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from trainyard.contracts.events import explain
from trainyard.domain.arrivals import is_data
from trainyard.domain.errors import Refused

MANIFEST_BYTES_MAX = 1024 * 1024
FILES_MAX = 10_000

FileName = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class BatchManifest(BaseModel):
    """{"files": ["part-0.csv", "part-1.csv"]}: names below the data set's folder."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    files: Annotated[list[FileName], Field(min_length=1, max_length=FILES_MAX)]


def parse_batch_manifest(body: bytes) -> tuple[str, ...]:
    """Return the names of the files that a manifest lists; raises Refused, naming what is wrong."""
    try:
        files = BatchManifest.model_validate_json(body).files
    except ValidationError as error:
        raise Refused(
            f'the manifest is not {{"files": ["part-0.csv"]}}: {explain(error)}', kind="manifest"
        ) from None
    unusable = next((name for name in files if not is_data(name, "")), None)
    if unusable is not None:
        raise Refused(f"the manifest names {unusable!r}, which no training can read", kind="manifest")
    return tuple(dict.fromkeys(files))
