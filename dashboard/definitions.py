"""What each metric of a run means, in a sentence for a newcomer; how it is computed is in `export_views.sql`."""

from __future__ import annotations

from typing import NamedTuple


class Metric(NamedTuple):
    """`means` is a sentence; `better` is higher, lower, or "" where neither is; `share` is a part of 1."""

    title: str
    means: str
    better: str = ""
    share: bool = False

    @property
    def amount(self) -> bool:
        """Whether it is an amount of its resource, in that unit."""
        return self.title in AMOUNTS


AMOUNTS = {"needed", "served", "unmet", "produced", "grown", "spilled", "given", "worse off"}
"""The titles of metrics that are amounts."""


METRICS = {
    "acceptance_rate": Metric(
        "accepted", "Executed proposals, of those executed, refused, held and malformed.", "higher", True
    ),
    "waited": Metric("waited", "Proposals that were held for a person's approval, whatever became of them.", "lower"),
    "demanded": Metric("needed", "What was to be consumed."),
    "served": Metric("served", "What was consumed: the part of the need that was there.", "higher"),
    "unmet": Metric("unmet", "Needed less served.", "lower"),
    "produced": Metric("produced", "What came in by production."),
    "grown": Metric("grown", "What grew."),
    "spilled": Metric("spilled", "What storage could not hold, and was lost.", "lower"),
    "transferred": Metric("given", "What executed proposals moved from one actor to another."),
    "import_cost": Metric("import cost", "Sum over epochs of what was unmet, times its price then.", "lower"),
    "self_sufficiency": Metric("needs served", "Served, of what was needed.", "higher", True),
    "self_consumption": Metric("used of production", "Served, of what was produced.", "higher", True),
    "served_share_min": Metric(
        "worst served", "The share of its need that the actor got who got the smallest one.", "higher", True
    ),
    "loss_of_load_probability_max": Metric(
        "most often short", "The share of epochs in which the worst-off actor had an unmet need.", "lower", True
    ),
    "worse_off": Metric(
        "worse off", "What some were served less than if nobody had proposed anything, all together.", "lower"
    ),
    "gini": Metric("Gini", "How unequal balances are at the end: 0 is equal, near 1 is all with one.", "lower"),
    "jain": Metric("Jain", "How equal balances are at the end: 1 is equal, 1/n is all with one.", "higher"),
    "regret": Metric(
        "regret", "How far served is from the best that was possible: 0 is the best, 1 as if nobody proposed.", "lower"
    ),
    "survival_time": Metric("survived", "Epochs until the commons collapsed, or all of them.", "higher"),
    "survival_rate": Metric("survived to the end", "1 where the commons survived, else 0.", "higher"),
    "gain": Metric("gain", "What was granted of the commons, all together.", "higher"),
    "efficiency": Metric("efficiency", "Gain, of what could be taken for ever.", "higher", True),
    "equality": Metric("equality", "How equal the gains are: 1 is equal.", "higher"),
    "over_usage": Metric("over-usage", "The share of harvests that took more than grows back.", "lower", True),
}
"""By the name of the metric, as `metrics_run` has it."""


def of(name: str) -> Metric:
    """The definition of a metric; one that is not known is called by its name."""
    return METRICS.get(name, Metric(name.replace("_", " "), ""))
