"""Writes english-notes.csv, short notes of forty people in four classes, and english-words.txt, the words that a model knows.

    python english-notes.py
"""

import csv
import random
import re

draw = random.Random(20)

SUBJECTS = {
    "weather": ["the rain", "a cold wind", "the fog", "the first snow", "the sun", "a storm", "the frost", "the heat"],
    "food": ["the soup", "fresh bread", "the cake", "our dinner", "the fish", "a bowl of rice", "the cheese", "the salad"],
    "sport": ["the match", "our team", "the runner", "the second half", "the goalkeeper", "the race", "the coach", "the game"],
    "travel": ["the train", "our flight", "the hotel", "the ferry", "the road", "the tour", "the station", "the bus"],
}
VERBS = {
    "weather": ["came over the hills", "lasted all night", "kept us inside", "was gone by noon", "froze the lake",
                "cleared the sky"],
    "food": ["needed more salt", "tasted wonderful", "was burnt again", "came out of the oven", "was far too sweet",
             "fed eight of us"],
    "sport": ["ended without a goal", "was lost by a point", "won by a length", "began an hour late",
              "trained in the dark", "scored at last"],
    "travel": ["was late again", "left without us", "was fully booked", "crossed the border", "stopped at every village",
               "took us to the coast"],
}
# What anybody may say of anything, so that some words mislead.
ASIDES = ["this morning", "as I had feared", "to our surprise", "while the bread was in the oven", "after the match",
          "in spite of the rain", "on the way to the station", "and nobody minded", "on Sunday", "once more",
          "before the train came", "with half of the team"]
OPENINGS = ["", "I must say that ", "They told me that ", "Last week ", "It seems that ", "You should know that ",
            "Well, ", "As usual, "]


def note(kind):
    # One word in eight is of another class, as people are.
    other = draw.choice(list(SUBJECTS))
    subject = draw.choice(SUBJECTS[other if draw.random() < 0.12 else kind])
    verb = draw.choice(VERBS[kind])
    aside = " " + draw.choice(ASIDES) if draw.random() < 0.7 else ""
    sentence = draw.choice(OPENINGS) + subject + " " + verb + aside
    return sentence[0].upper() + sentence[1:] + draw.choice([".", "!", ", I am afraid."])


rows = []
for person in range(40):
    # Everybody has a subject of their own and a little of the others.
    favourite = list(SUBJECTS)[person % 4]
    for _ in range(draw.randint(12, 28)):
        kind = favourite if draw.random() < 0.6 else draw.choice(list(SUBJECTS))
        rows.append((f"person {person}", kind, note(kind)))

with open("english-notes.csv", "w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("who", "subject", "note"))
    writer.writerows(rows)

phrases = [text for kinds in (SUBJECTS, VERBS) for texts in kinds.values() for text in texts] + ASIDES + OPENINGS
words = sorted(set(re.findall(r"[a-z]+", " ".join(phrases).lower())) | {"afraid", "am"})
with open("english-words.txt", "w", encoding="utf-8") as file:
    file.write("<unk>\n" + "".join(word + "\n" for word in words))
print(len(rows), len(words) + 1)
