"""Known holes in what is installed: pip-audit's answer in a few lines, and no all-clear where nobody could be asked.

Exit code 0: asked, and none known. 1: there are some. 2: the database of holes could not be asked.
"""

import json
import subprocess
import sys

# Known, without a fixed release, and not reachable from here; remove each as soon as a release fixes it.
ACCEPTED = {
    "CVE-2026-69112": "accelerate's load_checkpoint_in_model and load_checkpoint_and_dispatch; neither is called here",
}
PROJECT = "cxr-densenet-fpn"


def main() -> int:
    """Print the known holes of what is installed; return 1 if there is one."""
    ignored = [option for hole in ACCEPTED for option in ("--ignore-vuln", hole)]
    asked = subprocess.run(
        [sys.executable, "-m", "pip_audit", "--local", "--format", "json", "--progress-spinner", "off", *ignored],
        capture_output=True,
        text=True,
    )
    try:
        packages = [each for each in json.loads(asked.stdout)["dependencies"] if each["name"] != PROJECT]
    except ValueError:  # it stopped before it had an answer
        print(f"audit: nothing is known, for {(asked.stderr.strip().splitlines() or ['pip-audit is silent'])[-1]}")
        return 2
    audited = [each for each in packages if "vulns" in each]
    skipped = {each["name"]: each["skip_reason"] for each in packages if "vulns" not in each}
    if not audited:
        reason = next(iter(skipped.values()), "nothing is installed")
        print(f"audit: nothing is known, for none of {len(packages)} packages could be looked up ({reason})")
        return 2
    if skipped:
        print(f"not looked up: {', '.join(skipped)}")
    holes = [(each, hole) for each in audited for hole in each["vulns"]]
    for package, hole in holes:
        fixed = ", ".join(hole["fix_versions"]) or "no release yet"
        print(f"{package['name']} {package['version']}: {hole['id']}, fixed in {fixed}; {hole['description'][:200]}")
    for hole, reason in ACCEPTED.items():
        print(f"accepted: {hole}, {reason}")
    print(f"audit: {len(holes)} known holes in {len(audited)} packages")
    return 1 if holes else 0


if __name__ == "__main__":
    sys.exit(main())
