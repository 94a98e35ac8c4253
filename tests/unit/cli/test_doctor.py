"""`edge-runtime doctor`."""

from __future__ import annotations

import json

from edge_runtime.doctor import diagnose


def test_it_says_what_this_machine_has(run) -> None:
    found = diagnose()
    text = run("doctor").stdout
    assert found.board.architecture in text
    assert ["numpy", found.versions["numpy"]] in [line.split() for line in text.splitlines()]
    for backend in found.backends:
        assert backend.name in text
    for advice in found.advice:
        assert " ".join(advice.split()) in " ".join(text.split())


def test_json_is_the_diagnosis(run) -> None:
    assert json.loads(run("doctor", "--json").stdout) == json.loads(
        json.dumps(diagnose().to_json())
    )
