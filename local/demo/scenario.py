"""The demo's tenants, their uploads, and the expected results."""

from dataclasses import dataclass, field

from local.demo import data


@dataclass(frozen=True)
class Drop:
    """An object that a tenant uploads."""

    tenant: str
    key: str
    body: bytes
    expected: str = "SUCCEEDED"


@dataclass(frozen=True)
class DemoTenant:
    name: str
    tier: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Scenario:
    tenants: tuple[DemoTenant, ...]
    waves: tuple[tuple[str, tuple[Drop, ...]], ...] = field(repr=False)
    """Title and uploads; each wave is uploaded at once, shortly after the previous one."""

    @property
    def drops(self) -> list[Drop]:
        return [drop for _, drops in self.waves for drop in drops]


def build() -> Scenario:
    tenants = (
        DemoTenant("aster", "basic", ("--target", "target", "--algorithm", "linear")),
        DemoTenant("birch", "basic", ("--target", "target", "--serving", "serverless:memory_mb=1024")),
        DemoTenant(
            "cedar",
            "standard",
            ("--target", "revenue", "--problem", "regression", "--train-on", "whole-prefix"),
        ),
        DemoTenant("dogwood", "standard", ("--target", "churned", "--serving", "real-time")),
        DemoTenant(
            "elm",
            "premium",
            ("--target", "is_fraud", "--hyperparameter", "max_iter=150", "--serving", "asynchronous"),
        ),
        DemoTenant(
            "fern",
            "premium",
            ("--target", "target", "--data-set", "diabetes:target=target,algorithm=linear,problem=regression"),
        ),
    )
    first = (
        Drop("aster", "incoming/iris/iris.csv", data.bundled("iris")),
        Drop("birch", "incoming/wine/wine.csv", data.bundled("wine")),
        *(
            Drop("cedar", f"incoming/sales/part-{part:02d}.csv", data.sales(700, seed=part), expected="MERGED")
            for part in range(12)
        ),
        Drop("dogwood", "incoming/churn/churn.csv", data.churn(3000, seed=1), expected="SUPERSEDED"),
        Drop("elm", "incoming/payments/2026-10.csv", data.fraud(30000, seed=2)),
        Drop("fern", "incoming/cancer/cancer.csv", data.bundled("cancer")),
        Drop("fern", "incoming/diabetes/diabetes.csv", data.bundled("diabetes"), expected="FAILED"),
    )
    second = (
        Drop("dogwood", "incoming/churn/churn.csv", data.churn(4000, seed=3)),
        *(
            Drop("elm", f"incoming/region-{region}/payments.csv", data.fraud(12000, seed=10 + region))
            for region in range(8)
        ),
        Drop("dogwood", "incoming/contracts 2026/data.csv", data.churn(100, seed=4), expected="REJECTED"),
        Drop("birch", "incoming/empty/nothing.csv", b"", expected="REJECTED"),
        Drop("aster", "incoming/labels/unlabelled.csv", data.sales(100, seed=5), expected="FAILED"),
        Drop("dogwood", "incoming/café/kündigungen +1%2F.csv", data.churn(500, seed=6), expected="REJECTED"),
        Drop("dogwood", "incoming/cancellations/kündigungen +1%2F.csv", data.churn(2500, seed=7)),
    )
    return Scenario(
        tenants=tenants,
        waves=(
            ("every tenant uploads data, one of them in twelve parts", first),
            ("a repeated upload, a burst, and unusable files", second),
        ),
    )
