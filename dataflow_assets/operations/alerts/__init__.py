"""Telling people: what happened, to whom it is told, once.

Here: `Incident` and `report`, by which any sensor or schedule hands over what it found. Inside: what runs show (`watching`), what is new
(`memory`), words (`wording`), channels, and the sensor. Not here: which channels there are (`spec.alerts`), who is told what
(`plan.alerts`).
"""

from dataflow_assets.operations.alerts.incidents import Incident, report

__all__ = ["Incident", "report"]
