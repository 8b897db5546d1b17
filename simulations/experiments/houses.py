"""Writes houses.csv, what houses were sold for by forty agents, in thousands. Some years are not known.

    python houses.py
"""

import csv
import random

draw = random.Random(22)
DISTRICTS = {"harbour": 70, "old town": 110, "hill": 40, "fields": 0, "island": 20}

with open("houses.csv", "w", newline="") as file:
    table = csv.writer(file, lineterminator="\n")
    table.writerow(["agent", "size", "rooms", "year", "district", "price"])
    for agent in range(40):
        districts = draw.sample(list(DISTRICTS), 3)
        for _ in range(40):
            size = round(min(max(draw.gauss(110, 40), 25), 260))
            rooms = max(1, round(size / 28 + draw.gauss(0, 0.8)))
            year, district = draw.randint(1900, 2020), draw.choice(districts)
            # Old houses are dear again, and no model can know the last 20.
            worth = 40 + 1.9 * size + 8 * rooms + DISTRICTS[district] * size / 100 + abs(year - 1960) * 0.9
            price = round(min(max(worth + draw.gauss(0, 20), 10), 990), 1)
            table.writerow([agent, size, rooms, "" if draw.random() < 0.1 else year, district, price])
