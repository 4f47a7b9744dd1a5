"""The papers' protocols on published data or your own: sweeps, results, tables. No methods here.

import fewclip.bench

table = fewclip.bench.base_to_new("photos/", methods=["kgcoop", "kgcoop+dept"], out="bench/")
print(table.to_markdown())
"""

from fewclip.bench.protocols import METHODS, base_to_new, cross_dataset, domain, few_shot, speed
from fewclip.bench.tables import Summary

__all__ = [
    "METHODS",
    "Summary",
    "base_to_new",
    "cross_dataset",
    "domain",
    "few_shot",
    "speed",
]
