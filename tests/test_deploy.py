"""The files of deploy/ and the unit in the docs: what they name exists, and they agree with each other.

Nothing is built here; Docker and Kubernetes are not needed.
"""

from __future__ import annotations

import importlib
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest

from nextclick.cli.serve import serve
from nextclick.serving.keys import add_key
from nextclick.serving.versions import Versions
from serving import saved

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
PORT = next(p.default for p in serve.params if p.name == "port")


def parsed(words: list[str]) -> dict[str, Any]:
    """What ``nextclick serve`` makes of arguments; fails as the command would for one that it has not."""
    with serve.make_context("serve", list(words)) as context:
        return dict(context.params)


def dockerfile() -> dict[str, list[str]]:
    """The arguments of each instruction of the Dockerfile, continued lines joined."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, rest = line.partition(" ")
            found.setdefault(name, []).append(rest.strip())
    return found


def entrypoint() -> list[str]:
    words: list[str] = yaml.safe_load(dockerfile()["ENTRYPOINT"][0])
    assert words[:2] == ["nextclick", "serve"]
    return words[2:]


def test_the_image_installs_what_there_is_and_serves_with_it() -> None:
    found = dockerfile()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (named,) = re.findall(r"/build\[([a-z,]+)\]", " ".join(found["RUN"]))
    assert set(named.split(",")) <= set(extras)
    for copied in found["COPY"]:
        *sources, _ = copied.split()
        assert all((ROOT / source).exists() for source in sources)
    command = yaml.safe_load(found["CMD"][0])
    options = parsed([*entrypoint(), *command])
    assert options["host"] == "0.0.0.0"
    assert options["no_keys"]
    assert options["port"] == int(found["EXPOSE"][0]) == PORT
    volumes = yaml.safe_load(found["VOLUME"][0])
    assert options["models"][0] in volumes
    assert str(Path(options["store"].removeprefix("sqlite:")).parent) in volumes
    (cache,) = re.findall(r"NUMBA_CACHE_DIR=(\S+)", found["ENV"][0])
    assert str(Path(cache).parent) in volumes
    check = yaml.safe_load(found["HEALTHCHECK"][0].partition("CMD ")[2])
    assert f"http://127.0.0.1:{PORT}/healthz" in check[2]
    compile(check[2], "health check", "exec")


def test_compose_starts_the_service_with_its_redis() -> None:
    content = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    service, redis = content["services"]["nextclick"], content["services"]["redis"]
    options = parsed([*entrypoint(), *service["command"]])
    host, port = re.fullmatch(r"redis://(\w+):(\d+)/\d+", options["store"]).groups()  # type: ignore[union-attr]
    assert host in content["services"]
    assert host in service["depends_on"]
    assert port == "6379"
    assert options["keys"] is not None
    mounted = {volume.split(":")[1]: volume.split(":")[0] for volume in service["volumes"]}
    assert set(mounted) == {options["models"][0], str(options["keys"])}
    assert service["ports"] == [f"127.0.0.1:{PORT}:{PORT}"]
    build = service["build"]
    context = (DEPLOY / build["context"]).resolve()
    assert (context / build["dockerfile"]).is_file()
    assert context == ROOT
    assert redis["command"][:3] == ["redis-server", "--appendonly", "yes"]
    assert {volume.split(":")[0] for volume in redis["volumes"]} <= set(content["volumes"])


def test_kubernetes_mounts_what_the_arguments_name_and_asks_where_it_answers() -> None:
    deployment, service = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    options = parsed([*entrypoint(), *container["args"]])
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert options["models"][0] in mounts
    assert str(options["keys"].parent) in mounts
    assert {mount["name"] for mount in mounts.values()} == {v["name"] for v in pod["spec"]["volumes"]}
    assert options["store"].startswith("redis://")
    assert (
        options["port"] == container["ports"][0]["containerPort"] == service["spec"]["ports"][0]["targetPort"]
    )
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startup": "/healthz",
        "liveness": "/healthz", "readiness": "/readyz",
    }  # fmt: skip
    assert {probe["port"] for probe in probes.values()} == {PORT}
    labels = pod["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels == service["spec"]["selector"]
    writable = [path for path, mount in mounts.items() if not mount.get("readOnly")]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    for variable in container["env"]:  # what is written lies on a volume
        assert any(variable["value"].startswith(path) for path in writable)


# -- the rules of the formats themselves, as far as these files use them

INSTRUCTIONS = {
    "FROM",
    "RUN",
    "COPY",
    "USER",
    "ENV",
    "EXPOSE",
    "VOLUME",
    "HEALTHCHECK",
    "ENTRYPOINT",
    "CMD",
    "ARG",
}
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1123, as Kubernetes wants it
QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|Ki|Mi|Gi|Ti|k|M|G|T)?")


def test_the_dockerfile_is_one() -> None:
    found = dockerfile()
    assert set(found) <= INSTRUCTIONS
    assert next(iter(found)) == "FROM"
    assert re.fullmatch(r"[a-z0-9./-]+:[\w.-]+", found["FROM"][0])
    for name in ("ENTRYPOINT", "CMD", "VOLUME"):  # the form without a shell is JSON, not YAML
        assert len(found[name]) == 1
        assert all(isinstance(word, str) for word in json.loads(found[name][0]))
    for line in found["ENV"]:
        assert all(re.fullmatch(r"[A-Z_]+=\S+", word) for word in shlex.split(line))
    made = set(re.findall(r"mkdir ([^&]*)", " ".join(found["RUN"]))[0].split())
    assert set(json.loads(found["VOLUME"][0])) <= made  # before they become volumes, with their owner
    (uid,) = found["USER"]
    assert f"--uid {uid} " in found["RUN"][0]
    check = found["HEALTHCHECK"][0]
    options = dict(re.findall(r"--(\S+)=(\S+)", check.partition("CMD ")[0]))
    assert set(options) <= {"interval", "timeout", "start-period", "start-interval", "retries"}
    assert re.fullmatch(r"\d+s", options["start-period"])


def test_compose_keeps_to_the_form_of_compose() -> None:
    content = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert set(content) <= {"name", "services", "volumes", "networks", "configs", "secrets"}
    allowed = {
        "image",
        "build",
        "command",
        "ports",
        "volumes",
        "depends_on",
        "restart",
        "environment",
        "user",
    }
    for service in content["services"].values():
        assert set(service) <= allowed
        assert ("image" in service) != ("build" in service)
        assert all(isinstance(word, str) for word in service["command"])
        assert service["restart"] in ("no", "always", "on-failure", "unless-stopped")
        for volume in service.get("volumes", ()):
            assert re.fullmatch(r"(\./[\w./-]+|[\w-]+):/[\w./-]+(:ro|:rw)?", volume)
            if not volume.startswith("./"):
                assert volume.partition(":")[0] in content["volumes"]
        for port in service.get("ports", ()):
            assert re.fullmatch(r"([\d.]+:)?\d+:\d+", port)


def test_kubernetes_keeps_to_the_form_of_kubernetes() -> None:
    deployment, service = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
    assert (deployment["apiVersion"], deployment["kind"]) == ("apps/v1", "Deployment")
    assert (service["apiVersion"], service["kind"]) == ("v1", "Service")
    assert set(deployment["spec"]) <= {"replicas", "selector", "strategy", "template"}
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert set(container) <= {
        "name", "image", "args", "command", "env", "ports", "resources", "securityContext", "volumeMounts",
        "startupProbe", "livenessProbe", "readinessProbe",
    }  # fmt: skip
    names = [deployment["metadata"]["name"], service["metadata"]["name"], container["name"]]
    names += [volume["name"] for volume in pod["volumes"]]
    assert all(NAME.fullmatch(name) for name in names)
    for volume in pod["volumes"]:
        (source,) = set(volume) - {"name"}
        assert source in ("persistentVolumeClaim", "secret", "emptyDir", "configMap")
    paths = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert len(set(paths)) == len(paths)
    assert all(path.startswith("/") for path in paths)
    for probe in (container["startupProbe"], container["livenessProbe"], container["readinessProbe"]):
        assert set(probe) <= {"httpGet", "periodSeconds", "failureThreshold", "timeoutSeconds"}
        assert set(probe["httpGet"]) == {"path", "port"}
        assert all(value > 0 for value in probe.values() if isinstance(value, int))
    for amounts in container["resources"].values():
        assert set(amounts) <= {"cpu", "memory"}
        assert all(QUANTITY.fullmatch(amount) for amount in amounts.values())
    requested, most = container["resources"]["requests"]["memory"], container["resources"]["limits"]["memory"]
    assert int(requested.removesuffix("Gi")) <= int(most.removesuffix("Gi"))
    assert all(isinstance(one["value"], str) for one in container["env"])
    assert all(isinstance(word, str) for word in container["args"])
    (uid,) = dockerfile()["USER"]
    assert pod["securityContext"]["runAsUser"] == int(uid)
    assert pod["securityContext"]["runAsNonRoot"]
    secret = next(volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume)
    assert f"create secret generic {secret} --from-file=keys.json" in (DEPLOY / "kubernetes.yaml").read_text()


def test_a_service_under_another_user_can_read_what_was_saved(tmp_path: Path) -> None:
    """Volumes hold what somebody else's refresh wrote; keys are for their maker until that changes it."""
    versions = Versions(tmp_path / "versions")
    versions.publish(saved(tmp_path))
    for path in (tmp_path / "versions").rglob("*"):
        if not path.name.startswith("."):
            assert path.stat().st_mode & 0o004, path
    add_key(tmp_path / "keys.json", "shop", ["recommend"])
    assert (tmp_path / "keys.json").stat().st_mode & 0o077 == 0


def unit() -> str:
    (text,) = re.findall(r"```text\n(\[Unit\].*?)```", (ROOT / "docs" / "serving.md").read_text(), re.DOTALL)
    return str(text)


def test_the_unit_of_systemd_serves_and_may_write_where_it_must(tmp_path: Path) -> None:
    settings = dict(re.findall(r"^(\w+)=(.*)$", unit(), re.MULTILINE))
    words = shlex.split(settings["ExecStart"])
    assert Path(words[0]).name == "nextclick"
    assert words[1] == "serve"
    options = parsed(words[2:])
    assert str(Path(options["store"].removeprefix("sqlite:")).parent) in settings["ReadWritePaths"].split()
    assert settings["StateDirectory"] == Path(settings["ReadWritePaths"]).name
    for _, value in re.findall(r"(\w+)=(/\S+)", settings["Environment"]):
        assert Path(value).parent == Path(settings["ReadWritePaths"])
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze to verify the unit with")
    file = tmp_path / "nextclick.service"
    binary = shutil.which("true")
    assert binary is not None
    file.write_text(unit().replace(words[0], binary))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(file)], capture_output=True, text=True, timeout=60
    )
    complaints = [line for line in done.stderr.splitlines() if "nextclick.service" in line]
    assert complaints == []


def test_commands_in_the_comments_exist() -> None:
    text = "\n".join(file.read_text() for file in DEPLOY.iterdir())
    called = set(re.findall(r"nextclick (refresh|keys|serve|rollback|export)\b", text))
    assert called >= {"refresh", "keys"}
    for name in called:
        command = getattr(importlib.import_module(f"nextclick.cli.{name}"), name)
        assert isinstance(command, click.Command)
