"""Makes citylearn_2022_17_homes.csv.gz from the Python package CityLearn 2.1.2 (MIT licence), and compares it.

    pip download --no-deps CityLearn==2.1.2
    python scenarios/data/citylearn_2022_17_homes.py CityLearn-2.1.2-py3-none-any.whl OUT.csv.gz

Load is `Equipment Electric Power [kWh]`; PV is `Solar Generation [W/kW]` times the building's nominal power; both in
whole Wh, as Python rounds their floats. The price is `Electricity Pricing [$/kWh]` of the hour.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import sys
import zipfile

FOLDER = "citylearn/data/citylearn_challenge_2022_phase_all/"
CONTENT = "4fbcee7d0a4cb6e0317f57d00b9906f29d9b352fceeb36954e9eafa4d86dfdb4"
"""sha256 of the CSV before it is packed."""


def table(package: zipfile.ZipFile) -> str:
    """The CSV: one row an hour, loads and PV of 17 homes, and the price."""

    def rows(name: str) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(package.read(FOLDER + name).decode())))

    schema = json.loads(package.read(FOLDER + "schema.json"))
    homes = range(1, 18)
    found = {i: rows(f"Building_{i}.csv") for i in homes}
    power = {i: schema["buildings"][f"Building_{i}"]["pv"]["attributes"]["nominal_power"] for i in homes}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [f"load_{i}_wh" for i in homes] + [f"pv_{i}_wh" for i in homes]
    writer.writerow(["hour", *names, "price_usd_per_kwh"])
    for hour, price in enumerate(rows("pricing.csv")):
        load = [round(float(found[i][hour]["Equipment Electric Power [kWh]"]) * 1000) for i in homes]
        pv = [round(float(found[i][hour]["Solar Generation [W/kW]"]) * power[i]) for i in homes]
        writer.writerow([hour, *load, *pv, price["Electricity Pricing [$/kWh]"]])
    return out.getvalue()


if __name__ == "__main__":
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        text = table(wheel).encode()
    with open(sys.argv[2], "wb") as file:
        file.write(gzip.compress(text, mtime=0))
    same = hashlib.sha256(text).hexdigest() == CONTENT
    sys.exit(0 if same else "the content differs from what the repository holds")
