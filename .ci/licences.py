"""Checks the licences of all dependencies against deny.toml, without building a checker: `cargo deny check licenses bans
sources` says the same and more where it is installed."""

import json
import re
import subprocess
import sys
import tomllib

allowed = set(tomllib.load(open("deny.toml", "rb"))["licenses"]["allow"])
metadata = json.loads(subprocess.check_output(["cargo", "metadata", "--locked", "--format-version", "1"]))


def satisfied(expression: str) -> bool:
    """Whether an SPDX expression can be met: any side of an OR, all sides of an AND."""
    expression = expression.replace("/", " OR ").strip()
    depth, parts, operators, start = 0, [], [], 0
    for match in re.finditer(r"\(|\)|\bOR\b|\bAND\b", expression):
        token = match.group()
        depth += (token == "(") - (token == ")")
        if depth == 0 and token in ("OR", "AND"):
            parts.append(expression[start : match.start()])
            operators.append(token)
            start = match.end()
    if not parts:
        if expression.startswith("(") and expression.endswith(")"):
            return satisfied(expression[1:-1])
        return expression in allowed
    parts.append(expression[start:])
    met = [satisfied(part) for part in parts]
    return all(met) if "AND" in operators else any(met)


bad = [
    f"{p['name']} {p['version']}: {p['license']}"
    for p in metadata["packages"]
    if not satisfied(p["license"] or "none stated") or (p["source"] or "registry").startswith("git")
]
print(f"{len(metadata['packages'])} packages, {len(bad)} with a licence that deny.toml does not allow", *bad, sep="\n")
sys.exit(bool(bad))
