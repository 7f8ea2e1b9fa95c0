"""How far a value lies from the values before it: weighted median and median absolute deviation over a sliding window.

Here: `Detector` over series that arrive in pieces, and the formulas. Not here: tables (`transforms.mad_anomaly_detector`),
histories of a metric (`checks.metric_anomaly`).
"""

from dataflow_assets.mad.detector import Detector
from dataflow_assets.mad.formulas import CONSISTENCY, Scores, Settings, center, judge, weights

__all__ = ["CONSISTENCY", "Detector", "Scores", "Settings", "center", "judge", "weights"]
