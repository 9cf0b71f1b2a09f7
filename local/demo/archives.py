"""What models predict, by their archives as they were downloaded, without the service."""

import io
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from local.cloud import REPOSITORY
from local.sagemaker.interpreter import interpreter
from local.sagemaker.jobs import unpack
from trainyard.domain.requests import Request


def predicted(s3: Any, tables: Mapping[Request, bytes], rows: int) -> dict[str, list[Any]]:
    """Return request → what its model, loaded with its own inference code, predicts of the first rows of a CSV."""
    jobs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for request, table in tables.items():
            assert request.outcome is not None
            bucket, _, key = str(request.outcome.model_uri).removeprefix("s3://").partition("/")
            archive = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
            model, data = Path(folder) / request.request_id, Path(folder) / f"{request.request_id}.csv"
            with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
                unpack(packed, model)
            data.write_bytes(table)
            jobs.append({"model": str(model), "data": str(data), "rows": rows})
        done = subprocess.run(
            [interpreter(), str(REPOSITORY / "local/sagemaker/predict.py")],
            input=json.dumps(jobs),
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"predictions failed: {done.stderr[-2000:]}")
    return dict(zip((request.request_id for request in tables), json.loads(done.stdout), strict=True))
