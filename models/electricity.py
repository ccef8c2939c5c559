"""Will the price of electricity in New South Wales lie above its mean of the last 24 hours?"""

from sklearn.ensemble import HistGradientBoostingClassifier

from service.spec import Feature, Gate, ModelSpec, Training

spec = ModelSpec(
    name="electricity",
    description="Half-hourly price of electricity in New South Wales against its mean of the last 24 hours, 1996-1998.",
    task="classification",
    target="class",
    timestamp="timestamp",
    features=[
        Feature("day", kind="categorical", categories=(1, 2, 3, 4, 5, 6, 7)),
        Feature("period", low=0, high=1),
        Feature("nswprice", low=0, high=1),
        Feature("nswdemand", low=0, high=1),
        Feature("vicprice", low=0, high=1),
        Feature("vicdemand", low=0, high=1),
        Feature("transfer", low=0, high=1),
    ],
    build=lambda: HistGradientBoostingClassifier(random_state=0),
    metric="accuracy",
    source="data/electricity.parquet",
    training=Training(initial="56d"),
    gate=Gate(floor=0.5),
)
