"""How many bikes will be rented in this hour in Washington, D.C.?"""

from sklearn.ensemble import HistGradientBoostingRegressor

from service.spec import Feature, ModelSpec, Training

spec = ModelSpec(
    name="bikes",
    description="Rentals an hour of the bike sharing system in Washington, D.C., 2011-2012.",
    task="regression",
    target="cnt",
    timestamp="timestamp",
    features=[
        Feature("season", kind="categorical", categories=(1, 2, 3, 4)),
        Feature("yr", low=0),
        Feature("mnth", kind="categorical", categories=(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)),
        Feature("hr", low=0, high=23),
        Feature("holiday", kind="boolean"),
        Feature("weekday", kind="categorical", categories=(0, 1, 2, 3, 4, 5, 6)),
        Feature("workingday", kind="boolean"),
        Feature("weathersit", kind="categorical", categories=(1, 2, 3, 4)),
        Feature("temp", low=0, high=1),
        Feature("atemp", low=0, high=1),
        Feature("hum", low=0, high=1),
        Feature("windspeed", low=0, high=1),
    ],
    build=lambda: HistGradientBoostingRegressor(random_state=0),
    metric="neg_mean_absolute_error",
    source="data/bikes.parquet",
    training=Training(initial="56d"),
)
