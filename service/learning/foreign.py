"""What Retrue takes from Evidently, in one place: its import warns of numpy's old names, which is nothing to us."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from evidently import DataDefinition, Dataset, Report
    from evidently.legacy.calculations.stattests import (
        StatTest,
        jensenshannon_stat_test,
        ks_stat_test,
        psi_stat_test,
        tvd_test,
        wasserstein_stat_test,
    )
    from evidently.legacy.core import ColumnType
    from evidently.metrics import ValueDrift
    from evidently.presets import DataSummaryPreset

__all__ = [
    "ColumnType",
    "DataDefinition",
    "DataSummaryPreset",
    "Dataset",
    "Report",
    "StatTest",
    "ValueDrift",
    "jensenshannon_stat_test",
    "ks_stat_test",
    "psi_stat_test",
    "tvd_test",
    "wasserstein_stat_test",
]
