"""How each algorithm takes features: categories and missing values as they are, or as numbers."""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler, TargetEncoder

NATIVE_CATEGORIES_MAX = 200
"""Of a column, that gradient boosting tells apart itself; it has bins for 255."""

INDICATED_CATEGORIES_MAX = 50
"""Of a column, with an indicator each; columns of more are encoded by what the target is in each category."""

SEED = 20


def encoder(algorithm: str, features: pd.DataFrame, problem: str) -> ColumnTransformer:
    """Return what makes an algorithm's input of features; not fitted."""
    categories = {name: len(features[name].cat.categories) for name in features if is_category(features[name])}
    if algorithm == "gradient-boosting":
        many = [name for name, count in categories.items() if count > NATIVE_CATEGORIES_MAX]
        return ColumnTransformer(
            [("by target", _by_target(problem), many)],
            remainder="passthrough",
        ).set_output(transform="pandas")
    numbers = [name for name in features if name not in categories]
    few = [name for name, count in categories.items() if count <= INDICATED_CATEGORIES_MAX]
    many = [name for name in categories if name not in few]
    scaled = make_pipeline(
        SimpleImputer(strategy="median", keep_empty_features=True, add_indicator=True), StandardScaler()
    )
    return ColumnTransformer(
        [
            ("numbers", scaled, numbers),
            ("indicators", OneHotEncoder(handle_unknown="ignore", dtype=np.float64), few),
            ("by target", make_pipeline(_by_target(problem), StandardScaler()), many),
        ]
    )


def is_category(column: pd.Series) -> bool:
    return isinstance(column.dtype, pd.CategoricalDtype)


def _by_target(problem: str) -> Any:
    kind = "continuous" if problem == "regression" else "auto"
    return TargetEncoder(target_type=kind, cv=KFold(5, shuffle=True, random_state=SEED))
