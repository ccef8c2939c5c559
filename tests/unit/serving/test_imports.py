"""What a load imports: without pandas where nobody wants it, and with whatever the version names."""

import io
import subprocess
import sys

import joblib
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeRegressor

from service.serving import imports
from service.serving.imports import named_in

CODE = """
import sys
from service.serving.imports import import_learners, spare_pandas
spare_pandas()
spare_pandas()
import_learners(["sklearn.linear_model", "sklearn.no_such_module", "json.tool"])
seen = ["pandas" in sys.modules, "sklearn.linear_model" in sys.modules, "json.tool" in sys.modules]
import pandas
from sklearn.preprocessing import StandardScaler
scaled = StandardScaler().set_output(transform="pandas").fit_transform(pandas.DataFrame({"a": [1.0, 3.0]}))
print(seen, sum("Spared" in type(one).__name__ for one in sys.meta_path), scaled["a"].tolist())
"""


def test_scikit_learn_starts_without_pandas_and_whoever_asks_for_it_gets_it() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[False, True, False] 1 [-1.0, 1.0]"


@pytest.mark.parametrize("part", [64, 1 << 20])
def test_a_pickle_names_the_modules_of_its_estimators_wherever_they_stand(
    monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    monkeypatch.setattr(imports, "_PART", part)
    buffer = io.BytesIO()
    joblib.dump(make_pipeline(StandardScaler(), LinearRegression(), DecisionTreeRegressor()), buffer)
    wanted = {
        "sklearn.linear_model._base", "sklearn.pipeline", "sklearn.preprocessing._data", "sklearn.tree._classes",
    }  # fmt: skip
    assert wanted <= set(named_in(buffer.getvalue()))
    assert named_in(b"no pickle at all") == []
