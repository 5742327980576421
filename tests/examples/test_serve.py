"""Examples of deployments: their options are the command's, their probes and ports the server's."""

from typing import Any

import pytest
import yaml

from efficientids_flax.serve.commands.serve import serve
from tests.paths import ROOT

FOLDER = ROOT / "examples" / "serve"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())
DEPLOYMENT, SERVICE = yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text())
POD = DEPLOYMENT["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
RECOMMENDER = COMPOSE["services"]["recommender"]


def parsed(arguments: list[str]) -> dict[str, Any]:
    return serve.make_context("serve", list(arguments)).params


@pytest.mark.parametrize("arguments", [RECOMMENDER["command"], CONTAINER["args"]])
def test_the_command_takes_the_options(arguments: list[str]):
    given = parsed(arguments)
    assert (given["checkpoint"], given["host"], given["port"]) == ("/model", "0.0.0.0", 8000)


def test_they_wait_for_longer_than_the_grace():
    assert parsed(CONTAINER["args"])["grace"] + 5 <= POD["terminationGracePeriodSeconds"]
    seconds = float(RECOMMENDER["stop_grace_period"].removesuffix("s"))
    assert parsed(RECOMMENDER["command"])["grace"] < seconds


def test_probes_ask_for_paths_that_there_are():
    text = (ROOT / "efficientids_flax" / "serve" / "web" / "app.py").read_text()
    probes = [CONTAINER[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")]
    assert [probe["path"] for probe in probes] == ["/readyz", "/readyz", "/healthz"]
    assert all(f'"{probe["path"]}"' in text and probe["port"] == "http" for probe in probes)
    assert "8000/readyz" in RECOMMENDER["healthcheck"]["test"][-1]


def test_ports_and_labels_fit_each_other():
    (port,) = CONTAINER["ports"]
    assert port == {"name": "http", "containerPort": 8000}
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    assert SERVICE["spec"]["selector"] == labels == DEPLOYMENT["spec"]["selector"]["matchLabels"]
    mounted = {mount["name"] for mount in CONTAINER["volumeMounts"]}
    assert mounted == {volume["name"] for volume in POD["volumes"]}


def test_the_image_runs_the_command():
    text = (FOLDER / "Dockerfile").read_text()
    assert 'ENTRYPOINT ["efficientids", "serve"]' in text
    assert "[serve]" in text and "USER server" in text
