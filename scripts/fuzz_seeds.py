"""Writes the seeds of the fuzz targets: bodies, times, events, deliveries, sources and destinations from the
tests and the documentation.

Usage: python3 scripts/fuzz_seeds.py FOLDER
"""

import base64
import hashlib
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = Path(sys.argv[1])


def write(target, seed):
    seed = seed.encode() if isinstance(seed, str) else seed
    folder = FOLDER / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)


def write_delivery(vendor, headers, body, query=None):
    target = f"/webhook/{vendor}" + (f"?{query}" if query else "")
    head = [f"POST {target}", *(f"{name}: {value}" for name, value in headers.items())]
    write("signatures", "\n".join(head) + "\n\n" + body)


for line in (ROOT / "tests/parity/golden.jsonl").read_text().splitlines():
    body = base64.b64decode(json.loads(line)["body_b64"])
    write("json", body)
    # The bodies are hostile: not all are JSON.
    found = re.search(rb'"created_at"\s*:\s*"((?:[^"\\]|\\.)*)"', body)
    if found:
        write("timestamp", found[1])

for file in (ROOT / "events").glob("*.json"):
    write("fronts", file.read_bytes())
for file in (ROOT / "events/vendors").iterdir():
    write("json", file.read_bytes())
    write_delivery(file.stem, {}, file.read_text())

for vector in json.loads((ROOT / "tests/vectors/vendors.json").read_text())["vectors"]:
    for name in ("first", "retry", "other"):
        if signed := vector.get(name):
            write_delivery(vector["vendor"], signed["headers"], signed["body"], vector.get("query"))
for vector in json.loads((ROOT / "tests/vectors/constructed.json").read_text()):
    write_delivery(vector["vendor"], vector["headers"], vector["body"])

for file in [ROOT / "docs/sources.md", *(ROOT / "tests/it").glob("*.rs")]:
    # Documents indent the sources by four spaces. Tests have them in raw strings.
    text = file.read_text()
    blocks = re.findall(r"(?:^(?: {4}.*)?\n)+", text, re.M) + re.findall(r'r#"(.*?)"#', text, re.S)
    for block in blocks:
        if "[sources." in block:
            write("sources", re.sub(r"^ +", "", block, flags=re.M).replace("{{", "{").replace("}}", "}"))

text = (ROOT / "docs/destinations.md").read_text()
for block in re.findall(r"```toml\n(.*?)```", text, re.S):
    write("destinations", block)
for shares in (["0-255"], ["0-127", "128-255"], ["0-9,20-29", "10-19,30-255", "none"]):
    tables = [f'[destinations.d{i}]\nkind = "http"\nurl = "https://x.dev"\nbytes = "{one}"\n' for i, one in enumerate(shares)]
    write("destinations", "".join(tables))

for folder in sorted(FOLDER.iterdir()):
    print(f"{len(list(folder.iterdir())):5} seeds for {folder.name}")
