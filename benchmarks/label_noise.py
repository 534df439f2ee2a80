"""What `sf2 data audit` finds, of labels moved on purpose.

    python benchmarks/label_noise.py move FACES OUT --share 0.1
    sf2 data audit MODEL OUT --json > audit.json
    python benchmarks/label_noise.py score OUT audit.json

FACES is a folder of PERSON/*.jpg; OUT becomes one of links to its images, a share of them under
another person, and `moved.json` beside the people.
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np

from sf2_plugin.data import read_face_folder

TRUTH = "moved.json"


def move(faces: Path, out: Path, share: float, seed: int) -> None:
    folder = read_face_folder(faces)
    people, count = folder.class_names, len(folder.samples)
    rng = np.random.default_rng(seed)
    chosen = set(rng.choice(count, round(share * count), replace=False).tolist())
    moved = []
    for i, (image, label) in enumerate(folder.samples):
        target = label
        while i in chosen and target == label:
            target = int(rng.integers(len(people)))
        place = out / people[target] / image.name
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            place = place.with_name(f"{people[label]}_{image.name}")
        os.symlink(image.resolve(), place)
        if i in chosen:
            moved.append(place.relative_to(out).as_posix())
    (out / TRUTH).write_text(json.dumps(moved))
    print(f"{out}: {len(moved)} of {count} labels moved")


def score(out: Path, audit: Path) -> None:
    moved = set(json.loads((out / TRUTH).read_text()))
    figures = json.loads(audit.read_text())
    listed = [label["image"] for label in figures.pop("labels")]
    found = len(moved.intersection(listed))
    figures["precision"] = found / max(len(listed), 1)
    figures["recall"] = found / max(len(moved), 1)
    print(json.dumps(figures | {"moved": len(moved)}, indent=2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("move", "score"):
        command = commands.add_parser(name)
        command.add_argument("faces" if name == "move" else "out", type=Path)
        command.add_argument("out" if name == "move" else "audit", type=Path)
        if name == "move":
            command.add_argument("--share", type=float, required=True)
            command.add_argument("--seed", type=int, default=0)
    given = vars(parser.parse_args())
    {"move": move, "score": score}[given.pop("command")](**given)


if __name__ == "__main__":
    main()
