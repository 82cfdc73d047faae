"""The command `doctor`."""

from __future__ import annotations

import typer

from bgaug.cli.console import FAILED, lines_table, show

_MARKS = {"ok": "ok", "optional": "-", "missing": "MISSING"}


def doctor_command(*, as_json: bool) -> None:
    """Look at this machine: packages, decoders, devices, memory, disk, and how to get what is missing.

    The exit code is 1 if something that is needed does not work.

    Examples:
        bgaug doctor

        bgaug doctor --json
    """
    from bgaug.pipelines.doctor.run import diagnose

    found = diagnose()
    rows = []
    for finding in found.findings:
        rows.append((_MARKS[finding.state], finding.part, finding.found))
        rows += [("", "", finding.fix)] if finding.fix else []
    show(found.to_json(), as_json, lambda: lines_table(rows))
    if found.missing:
        raise typer.Exit(FAILED)
