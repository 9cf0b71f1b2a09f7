"""What keeps cold starts short: a validated policy, imports that are left out, bytecode in the layer."""

import importlib.util
import json
import os
import subprocess
import sys
import zlib
from dataclasses import fields
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from hashlib import sha256
from pathlib import Path

import pytest

from testing.memory_store import MemoryStore
from tests.build import NOW
from trainyard.contracts import compiled_policy
from trainyard.contracts.compiled_policy import DEPLOYED, CheckedValues
from trainyard.contracts.policy_file import PolicyFile, parse_policy
from trainyard.contracts.settings import Settings
from trainyard.domain.policy import Budget, BudgetMode, Policy, Retries
from trainyard.domain.windows import Once, Weekly
from trainyard.persistence import policies as persistence_policies
from trainyard.persistence.policies import KEPT, Policies
from trainyard.persistence.store import Put

ROOT = Path(__file__).parents[2]
LAYER = ROOT / "layers/common/python"
SHIPPED = DEPLOYED.read_text(encoding="utf-8")
FULL = f"""{SHIPPED}
instance_quotas: {{training/ml.m5.large: 4}}
budget_thresholds: [10, 90]
retries: {{attempts_max: 2, delay_seconds: 7.5}}
tenants:
  acme: {{weight: 3, running_max: 2, budget_usd: 9.50, budget_mode: soft}}
  "42": {{budget_usd: 0.000001}}
windows:
  - {{name: night, from: 22:00, to: 06:00, days: [mon, sun], zone: Europe/Zurich, running_max: 30,
     tiers: {{basic: {{quota: 9}}}}}}
  - {{name: weekend, from: fri 18:00, to: mon 06:00, starts_per_second: 2,
     instance_quotas: {{training/ml.m5.large: 9}}}}
  - {{name: upgrade, from: "2026-11-22T02:00:00+01:00", to: 2026-11-22 03:30:00+01:00, closed: true}}
algorithms:
  forest:
    description: Trees
    training_image: 123456789012.dkr.ecr.us-east-1.amazonaws.com/forest:1
    code: s3://code-bucket/code/abc
    suffixes: [.parquet]
    input_format: parquet
    quality_metric: f1
    instances: [{{data_mb_max: 10, processing: ml.g5.xlarge, training: ml.g5.2xlarge, count: 2}}]
    hyperparameters:
      depth: {{kind: integer, default: 3, minimum: 1, maximum: 9}}
      rate: {{kind: number, default: 1.0, maximum: .inf}}
      mode: {{kind: text, default: "1", choices: ["1", b]}}
      warm: {{kind: boolean, default: true}}
"""
FORM = CheckedValues(region="us-east-1")


@pytest.mark.parametrize("text", [SHIPPED, FULL], ids=["shipped", "full"])
def test_what_is_kept_of_a_policy_is_that_policy(text: str) -> None:
    parsed = parse_policy(text, 7, "us-east-1")
    kept = FORM.read(FORM.kept(text), 7)
    assert kept == parsed
    assert repr(kept) == repr(parsed), "1, 1.0 and True are equal, and not the same"
    assert parsed.prices.hourly, "prices come along"


def test_every_value_of_a_policy_outlives_being_kept() -> None:
    kept = FORM.read(FORM.kept(FULL), 7)
    acme, number = kept.tenant("acme"), kept.tenant("42")
    assert (acme.weight, acme.running_max) == (3, 2)
    assert acme.budget == Budget(Decimal("9.50"), BudgetMode.SOFT)
    assert number.budget == Budget(Decimal("0.000001"), BudgetMode.HARD)
    assert kept.retries == Retries(attempts_max=2, delay=timedelta(seconds=7.5))
    night, weekend, upgrade = kept.windows
    assert night.when == Weekly((0, 6), time(22), time(6), 1, "Europe/Zurich")
    assert (night.limits, night.tiers) == ({"running_max": 30}, {"basic": {"quota": 9}})
    assert weekend.when == Weekly((4,), time(18), time(6), 3, "UTC")
    assert (weekend.limits, weekend.instance_quotas) == ({"starts_per_second": 2.0}, {"training/ml.m5.large": 9})
    begins = datetime(2026, 11, 22, 1, tzinfo=UTC)
    assert upgrade.when == Once(begins, begins + timedelta(hours=1.5))
    assert upgrade.tiers == {tier.name: {"closed": True} for tier in kept.tiers}
    forest = kept.algorithms["forest"].hyperparameters
    assert forest["rate"].maximum == float("inf")
    assert (forest["mode"].default, forest["warm"].default, forest["depth"].default) == ("1", True, 3)


def test_another_text_or_another_form_is_kept_under_another_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    before = FORM.digest(SHIPPED)
    assert FORM.digest(FULL) != before
    monkeypatch.setattr(compiled_policy, "FORM", compiled_policy.FORM + 1)
    assert FORM.digest(SHIPPED) != before


def test_a_schema_that_changes_makes_another_form() -> None:
    schema = json.dumps(PolicyFile.model_json_schema(), sort_keys=True)
    assert (compiled_policy.FORM, sha256(schema.encode()).hexdigest()[:12]) == (12, "5f87541f6b25"), (
        "the schema has changed: what older code kept would be read as if it had not. "
        "Raise compiled_policy.FORM, and write the new pair here"
    )


@pytest.mark.parametrize("damaged", [b"", b"x", zlib.compress(b"["), zlib.compress(b"{}"), zlib.compress(b"3")])
def test_what_cannot_be_read_counts_as_not_kept(damaged: bytes) -> None:
    store, parsed = MemoryStore(), list[str]()
    store.transact([Put(KEPT, {"of": FORM.digest(SHIPPED), "values": damaged})])
    assert _policies(store, parsed, keeps=True).current().version == 0
    assert _policies(store, parsed, keeps=False).current().version == 0
    assert len(parsed) == 1, "and is mended"


def test_what_would_not_fit_an_item_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    store, parsed = MemoryStore(), list[str]()
    monkeypatch.setattr(persistence_policies, "KEPT_BYTES_MAX", 100)
    assert _policies(store, parsed, keeps=True).current().version == 0
    assert store.get(KEPT) == [None]


def _policies(store: MemoryStore, parsed: list[str], *, keeps: bool) -> Policies:
    def parse(text: str, version: int) -> Policy:
        parsed.append(text)
        return FORM.parse(text, version)

    return Policies(store=store, deployed=SHIPPED, parse=parse, form=FORM, keeps=keeps, running_max=15)


def test_the_policy_in_force_is_checked_once_for_all_functions() -> None:
    store, parsed = MemoryStore(), list[str]()
    reader = _policies(store, parsed, keeps=False).current()
    assert store.get(KEPT) == [None], "who may only read the table keeps nothing"
    keeper = _policies(store, parsed, keeps=True).current()
    assert len(parsed) == 2
    assert _policies(store, parsed, keeps=False).current() == reader == keeper
    assert reader.running_max == 15, "capped by the deployment, however it is read"
    assert len(parsed) == 2, "what was kept is read"


def test_another_policy_is_checked_anew() -> None:
    store, parsed = MemoryStore(), list[str]()
    _policies(store, parsed, keeps=True).current()
    _policies(store, parsed, keeps=False).apply(SHIPPED + "\ninstance_quotas: {training/ml.m5.large: 3}\n", NOW)
    parsed.clear()
    again = _policies(store, parsed, keeps=True).current()
    assert again.instance_quotas == {"training/ml.m5.large": 3}
    assert len(parsed) == 1
    assert _policies(store, parsed, keeps=True).current() == again
    assert len(parsed) == 1


@pytest.mark.parametrize(("function", "use_case"), [("dispatcher", "dispatch"), ("reconciler", "reconcile")])
def test_a_function_that_reads_no_event_needs_no_schema(function: str, use_case: str) -> None:
    script = f"""
import sys
import app
from trainyard.entrypoints import bootstrap
form = bootstrap.{use_case}().policies.form
form.read(bytes.fromhex(sys.argv[1]), 1)
print(sorted({{name.split(".")[0] for name in sys.modules}} & {{"pydantic", "pydantic_core", "yaml"}}))
"""
    settings = {f"TRAINYARD_{field.name.upper()}": "1" for field in fields(Settings)}
    settings |= {"TRAINYARD_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1"}
    environment = os.environ | settings | {"PYTHONPATH": f"{LAYER}{os.pathsep}{ROOT / 'functions' / function}"}
    done = subprocess.run(
        [sys.executable, "-c", script, FORM.kept(SHIPPED).hex()],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_the_layer_has_bytecode_that_outlives_packaging(tmp_path: Path) -> None:
    subprocess.run(
        ["make", "-s", "bytecode", f"ARTIFACTS_DIR={tmp_path}", f"PYTHON={sys.executable}"],
        cwd=LAYER,
        check=True,
    )
    sources = sorted((tmp_path / "python").rglob("*.py"))
    assert len(sources) == len(list((LAYER / "trainyard").rglob("*.py")))
    for source in sources:
        code = Path(importlib.util.cache_from_source(str(source))).read_bytes()
        assert int.from_bytes(code[4:8], "little") == 0b01, f"{source.name}: of a hash, and never compared"
    shipped = {path.name for path in (tmp_path / "python/trainyard").iterdir()}
    assert {"policy.yaml", "prices.json"} <= shipped
