"""Writes wards.csv, patients of two hundred clinics: who is there for longer than a week. Some ages and habits are not known.

    python wards.py
"""

import csv
import math
import random

draw = random.Random(21)
WARDS = {"surgery": 0.9, "medicine": 0.2, "children": -1.4, "eyes": -1.0}

with open("wards.csv", "w", newline="") as file:
    table = csv.writer(file, lineterminator="\n")
    table.writerow(["clinic", "age", "heat", "ward", "smokes", "stays"])
    for clinic in range(200):
        # Clinics differ in whom they see.
        typical, wards = draw.gauss(52, 12), draw.sample(list(WARDS), 3)
        for _ in range(12):
            ward = draw.choice(wards)
            age = min(max(round(draw.gauss(9 if ward == "children" else typical, 12 if ward != "children" else 4)), 0), 99)
            heat = round(draw.gauss(37.2, 0.8), 1)
            smokes = draw.random() < 0.3
            odds = 0.06 * (age - 50) + 1.1 * (heat - 37.2) + WARDS[ward] + (1.2 if smokes else -0.2) - 0.3
            stays = draw.random() < 1 / (1 + math.exp(-odds))
            table.writerow([clinic, "" if draw.random() < 0.12 else age, heat, ward,
                            "" if draw.random() < 0.2 else "yes" if smokes else "no", "yes" if stays else "no"])
