"""Models in folders and on the Hugging Face Hub."""

import http.server
import json
import os
import sys
import threading
import urllib.parse
import warnings
from pathlib import Path

import pytest
import safetensors.torch
import torch

from flowprior import CheckpointError, ConditionalPosePrior
from flowprior.files import model_file, model_folder
from flowprior.files.model_card import ModelCard
from flowprior.prohmr import load_prior, to_state_dict
from tests.processes import in_child, run_python

hub = pytest.importorskip("huggingface_hub")
yaml = pytest.importorskip("yaml")

FILES = {"README.md", "config.json", "model.safetensors"}


def make_prior(provenance="", **options):
    torch.manual_seed(0)
    prior = ConditionalPosePrior(
        4, joints=3, layout="rows", hidden_features=16, num_steps=2, **options
    )
    prior.nll(torch.randn(10, 3, 6), torch.randn(10, 4))
    if provenance:
        prior.provenance = {"data": provenance}
        with torch.no_grad():
            prior.flow.steps[0].actnorm.log_scale.add_(1)
    return prior.eval()


@pytest.fixture
def prior():
    return make_prior()


@pytest.fixture
def folder(prior, tmp_path):
    prior.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def same(first, second):
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def edit_config(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(
        json.dumps({k: v for k, v in config.items() if v is not None}), encoding="utf-8"
    )


def edit_weights(folder, change, header=True):
    path = folder / "model.safetensors"
    with safetensors.safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    change(tensors)
    safetensors.torch.save_file(tensors, path, metadata if header else {"format": "pt"})


# --- folders ---


@pytest.mark.parametrize(
    "options",
    [{}, {"preset": "prohmr"}, {"coupling": "spline", "dropout": 0.25}, {"space": "so3"}],
    ids=str,
)
def test_round_trip_of_a_model_folder(tmp_path, options):
    prior = make_prior(**options)
    prior.provenance = {"data": "twelve poses"}
    assert prior.save_pretrained(tmp_path / "a" / "b") is None
    assert {path.name for path in (tmp_path / "a" / "b").iterdir()} == FILES
    again = ConditionalPosePrior.from_pretrained(tmp_path / "a" / "b")
    assert same(prior, again)
    assert again.config == prior.config
    assert again.provenance == prior.provenance
    assert not again.training
    context = torch.randn(2, 4)
    assert torch.equal(again.mode(context), prior.mode(context))


def test_the_configuration_can_be_read_by_people(prior, folder):
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["library_name"] == "flowprior"
    assert config["format_version"] == model_file.FORMAT_VERSION
    assert (config["preset"], config["space"], config["layout"]) == ("default", "so3", "rows")
    assert (config["joints"], config["context_features"]) == (3, 4)


def test_the_weights_are_a_model_file_too(prior, folder):
    assert same(prior, ConditionalPosePrior.load(folder / "model.safetensors"))


def test_a_name_of_a_folder_may_look_like_one_of_the_hub(prior, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prior.save_pretrained("somebody/model")
    assert same(prior, ConditionalPosePrior.from_pretrained("somebody/model"))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_is_kept(prior, tmp_path, dtype):
    prior.to(dtype).save_pretrained(tmp_path)
    assert ConditionalPosePrior.from_pretrained(tmp_path).flow.weight_dtype == dtype


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("count", range(1, 5))
def test_killed_at_any_write_a_folder_holds_the_old_model_or_the_new_one(
    prior, tmp_path, monkeypatch, step, count, fresh
):
    folder = tmp_path / "model"
    if not fresh:
        prior.save_pretrained(folder)
    other = make_prior(target_noise=0.5, provenance="new")
    real, calls = getattr(os, step), []

    def killed(*arguments):
        calls.append(arguments)
        if len(calls) == count:
            os._exit(9)
        real(*arguments)

    def save():
        monkeypatch.setattr(os, step, killed)
        other.save_pretrained(folder, model_card_kwargs={"license": "mit"})

    code = in_child(save)
    assert code in (0, 9)
    if fresh and code and not (folder / "model.safetensors").exists():
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*differ in target_noise")
        found = ConditionalPosePrior.from_pretrained(folder)
    old = not fresh and found.config == prior.config
    expected = prior if old else other
    assert not (old and code == 0)
    assert same(found, expected)
    assert found.config == expected.config
    assert found.provenance == expected.provenance
    other.save_pretrained(folder)
    assert {path.name for path in folder.iterdir()} == FILES
    assert ConditionalPosePrior.from_pretrained(folder).config == other.config


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_failure_changes_no_file(prior, folder, monkeypatch, name):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    real = Path.write_bytes

    def full(path, content):
        if path.name.startswith(f".{name}."):
            raise OSError(28, "No space left on device")
        real(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=f"No space left.*{name}'"):
        make_prior(target_noise=0.5).save_pretrained(folder, model_card_kwargs={"license": "mit"})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_protected_file_protects_the_whole_model(folder, name):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / name).chmod(0o444)
    with pytest.raises(PermissionError, match=f"write-protected: .*{name}'"):
        make_prior(target_noise=0.5).save_pretrained(folder, model_card_kwargs={"license": "mit"})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def from_original(folder):
    original = ConditionalPosePrior(4, joints=8, space="points", preset="prohmr", hidden_features=8)
    original.nll(torch.randn(10, 8, 3), torch.randn(10, 4))
    torch.save({"state_dict": to_state_dict(original)}, folder / "original.ckpt")
    return load_prior(folder / "original.ckpt", space="points")


@pytest.mark.parametrize(
    "load",
    [
        ConditionalPosePrior.from_pretrained,
        lambda folder: ConditionalPosePrior.load(folder / "model.safetensors"),
        from_original,
    ],
    ids=["from_pretrained", "load", "load_prior"],
)
@pytest.mark.parametrize("freeze", [False, True])
def test_a_model_loaded_in_inference_mode_has_gradients_later(folder, load, freeze):
    with torch.inference_mode():
        prior = load(folder)
        if freeze:
            prior = prior.freeze()
    z = torch.randn(2, 5, prior.flow.features, requires_grad=True)
    theta = prior(torch.randn(2, 4)).decode(z)
    theta.square().sum().backward()
    assert z.grad.isfinite().all()
    assert all(weight.grad is not None for weight in prior.parameters() if weight.requires_grad)
    assert freeze or any(weight.requires_grad for weight in prior.parameters())


def test_a_subclass_reads_itself(folder):
    class Mine(ConditionalPosePrior):
        pass

    assert type(Mine.from_pretrained(folder)) is Mine


# --- what cannot be read ---


@pytest.mark.parametrize(
    "name", ["nothing", "./nothing", "a/b/c", "/nothing/there", "../x", "a b/c"]
)
def test_no_such_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder; models of the library are"):
        ConditionalPosePrior.from_pretrained(name)


def test_a_path_is_never_looked_for_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(model_folder, "_hub", lambda: pytest.fail("asked the hub"))
    with pytest.raises(FileNotFoundError, match="no such folder"):
        ConditionalPosePrior.from_pretrained(Path("user/model"))


def test_a_file_instead_of_a_folder(folder):
    with pytest.raises(CheckpointError, match=r"is a file; .*ConditionalPosePrior\.load"):
        ConditionalPosePrior.from_pretrained(folder / "model.safetensors")


@pytest.mark.parametrize("name", sorted(FILES - {"README.md"}))
def test_a_file_is_missing(folder, name):
    (folder / name).unlink()
    if name == "config.json":  # needed only by weights that flowprior did not write
        ConditionalPosePrior.from_pretrained(folder)
        edit_weights(folder, lambda tensors: None, header=False)
    with pytest.raises(CheckpointError, match=rf"has no {name}.* it contains README\.md"):
        ConditionalPosePrior.from_pretrained(folder)


def test_the_card_is_not_needed(prior, folder):
    (folder / "README.md").unlink()
    assert same(prior, ConditionalPosePrior.from_pretrained(folder))


def test_pickled_weights_are_not_read(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"it contains .*pytorch_model\.bin"):
        ConditionalPosePrior.from_pretrained(folder)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "bert", "architectures": ["BertModel"]}, "another library.*bert.*BertMod"),
        ({"_class_name": "UNet2DModel", "sample_size": 32}, "another library.*UNet2DModel"),
        ({"hidden_size": 3}, "another library's model .it names none"),
    ],
)
def test_the_configuration_of_another_library(folder, config, message):
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        ConditionalPosePrior.from_pretrained(folder)


@pytest.mark.parametrize("text", ["", "{", "[1]", "7", '{"format_version": "x"}'])
def test_a_damaged_configuration(folder, text):
    (folder / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"config\.json is damaged"):
        ConditionalPosePrior.from_pretrained(folder)


def test_a_newer_format(folder):
    edit_config(folder, format_version=model_file.FORMAT_VERSION + 1)
    with pytest.raises(CheckpointError, match="install a newer flowprior"):
        ConditionalPosePrior.from_pretrained(folder)


def test_the_weights_file_has_the_last_word_on_the_configuration(prior, folder):
    edit_config(folder, layout="columns")
    with pytest.warns(UserWarning, match="differ in layout. The model is built from") as found:
        again = ConditionalPosePrior.from_pretrained(folder)
    assert found[0].filename == __file__
    assert again.config == prior.config
    assert again.space.layout == "rows"


def test_unknown_argument(folder):
    edit_weights(folder, lambda tensors: None, header=False)
    edit_config(folder, depth=3)
    with pytest.raises(CheckpointError, match=r"not a pose prior.*depth"):
        ConditionalPosePrior.from_pretrained(folder)


def test_weights_of_another_model(folder):
    edit_weights(folder, lambda tensors: tensors.pop("flow.temperature"))
    with pytest.raises(CheckpointError, match=r"missing flow\.temperature"):
        ConditionalPosePrior.from_pretrained(folder)


def test_damaged_weights(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-10])
    with pytest.raises(CheckpointError, match="truncated"):
        ConditionalPosePrior.from_pretrained(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(folder, value):
    edit_weights(folder, lambda tensors: tensors["flow.steps.1.actnorm.log_scale"][:2].fill_(value))
    with pytest.raises(
        CheckpointError, match=r"NaN or infinity in flow\.steps\.1\.actnorm\.log_scale"
    ):
        ConditionalPosePrior.from_pretrained(folder)
    with pytest.raises(CheckpointError, match="NaN or infinity"):
        ConditionalPosePrior.load(folder / "model.safetensors")


# --- the hub's own mixin ---


@pytest.fixture
def mixed():
    """The prior as a user of the hub's mixin would declare it: its methods come first."""

    class Mixed(hub.PyTorchModelHubMixin, ConditionalPosePrior):
        pass

    assert Mixed.from_pretrained.__func__ is not ConditionalPosePrior.from_pretrained.__func__
    return Mixed


def test_the_mixin_reads_what_we_write(prior, folder, mixed, capsys):
    again = mixed.from_pretrained(str(folder), strict=True)
    assert same(prior, again)
    assert again.config == prior.config


def test_we_read_what_the_mixin_writes(mixed, tmp_path):
    torch.manual_seed(0)
    theirs = mixed(4, joints=3, layout="rows", hidden_features=16, num_steps=2)
    theirs.nll(torch.randn(10, 3, 6), torch.randn(10, 4))
    theirs.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == FILES
    again = ConditionalPosePrior.from_pretrained(tmp_path)
    assert same(theirs, again)
    assert again.config == theirs.config


# --- the card ---


def front_matter(folder):
    text = (folder / "README.md").read_text(encoding="utf-8")
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def test_card_contains_the_users_text(prior, tmp_path):
    prior.save_pretrained(
        tmp_path / "walker",
        model_card_kwargs={
            "license": "cc0-1.0",
            "data": "walks | of: #seven 'people' — \"all\" of them",
            "metrics": {"MPJPE of the mode, mm": 81.25, "NLL": -312},
            "tags": ["walking"],
        },
    )
    front, body = front_matter(tmp_path / "walker")
    assert front["license"] == "cc0-1.0"
    assert front["library_name"] == "flowprior"
    assert {"flowprior", "walking"} <= set(front["tags"])
    assert front["flowprior"]["preset"] == "default"
    assert front["flowprior"]["layout"] == "rows"
    (result,) = front["model-index"][0]["results"]
    assert result["dataset"]["name"] == "walks | of: #seven 'people' — \"all\" of them"
    assert [metric["value"] for metric in result["metrics"]] == [81.25, -312]
    assert 'from_pretrained("walker")' in body
    assert "| MPJPE of the mode, mm | 81.25 |" in body
    card = hub.ModelCard.load(tmp_path / "walker" / "README.md")
    assert card.data.library_name == "flowprior"
    assert [result.metric_value for result in card.data.eval_results] == [81.25, -312]


def test_card_without_text(folder):
    front, body = front_matter(folder)
    assert "license" not in front
    assert "model-index" not in front
    assert "3 joint rotations on SO(3) given a context of 4 numbers" in body
    assert "its mode is exactly the answer of its head, or the centre passed" in body


def test_a_card_of_a_prior_over_6d_vectors(tmp_path):
    make_prior(space="rot6d").save_pretrained(tmp_path)
    assert "3 joint rotations given a context of 4 numbers" in front_matter(tmp_path)[1]


def test_card_describes_the_mode(tmp_path):
    make_prior(head_features=0, base="student_t").save_pretrained(tmp_path / "a")
    body = front_matter(tmp_path / "a")[1]
    assert "its mode is exactly the centre passed with the context" in body
    assert "Student's t" in body
    make_prior(anchored=False).save_pretrained(tmp_path / "b")
    assert "anchored:" not in front_matter(tmp_path / "b")[1]


def test_card_is_kept_without_new_text(prior, folder):
    (folder / "README.md").write_text("my own", encoding="utf-8")
    prior.save_pretrained(folder)
    assert (folder / "README.md").read_text(encoding="utf-8") == "my own"
    prior.save_pretrained(folder, model_card_kwargs={"license": "mit"})
    assert front_matter(folder)[0]["license"] == "mit"


def test_wrong_card_is_rejected_before_writing(prior, tmp_path):
    with pytest.raises(TypeError, match="licence"):
        prior.save_pretrained(tmp_path / "a", model_card_kwargs={"licence": "mit"})
    for value in (float("nan"), "80 mm", True):
        with pytest.raises(ValueError, match="metric 'MPJPE' must be a finite number"):
            ModelCard(metrics={"MPJPE": value})
    with pytest.raises(TypeError, match="private only with push_to_hub"):
        prior.save_pretrained(tmp_path / "a", private=True)
    assert not (tmp_path / "a").exists()


# --- the hub, with a stand-in for its two calls ---


@pytest.fixture
def remote(monkeypatch, tmp_path):
    """Repositories in a folder, behind huggingface_hub's own functions."""
    store = tmp_path / "remote"
    asked = []

    def snapshot_download(repo_id, *, allow_patterns, **options):
        asked.append((repo_id, allow_patterns, options))
        return str(store / repo_id)

    class Api:
        def __init__(self, token=None):
            self.token = token

        def create_repo(self, repo_id, private, exist_ok):
            (store / repo_id).mkdir(parents=True, exist_ok=exist_ok)
            return hub.RepoUrl(f"https://huggingface.co/{repo_id}")

        def upload_folder(self, *, repo_id, folder_path, **options):
            asked.append((repo_id, self.token, options))
            for name in os.listdir(folder_path):
                with open(os.path.join(folder_path, name), "rb") as file:
                    (store / repo_id / name).write_bytes(file.read())
            return f"https://huggingface.co/{repo_id}/commit/1"

    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(hub, "HfApi", Api)
    return asked


def test_pushed_and_fetched(prior, remote):
    url = prior.push_to_hub("user/model", private=True, token="t", branch="b")
    assert url == "https://huggingface.co/user/model/commit/1"
    _, token, options = remote.pop()
    assert (token, options["revision"]) == ("t", "b")
    again = ConditionalPosePrior.from_pretrained("user/model", revision="v1", token="t")
    assert same(prior, again)
    name, patterns, options = remote.pop()
    assert name == "user/model"
    assert set(patterns) == FILES - {"README.md"}
    assert (options["revision"], options["token"]) == ("v1", "t")


def test_saved_and_pushed_at_once(prior, remote, tmp_path):
    url = prior.save_pretrained(
        tmp_path / "here", push_to_hub=True, repo_id="user/x", commit_message="hello"
    )
    assert url.endswith("user/x/commit/1")
    assert remote[0][2]["commit_message"] == "hello"
    text = (tmp_path / "remote" / "user" / "x" / "README.md").read_text(encoding="utf-8")
    assert 'from_pretrained("user/x")' in text


def response(status, code=None):
    """What the hub answers, made by the HTTP library that it uses."""
    http = sys.modules[hub.errors.HTTPError.__module__.split(".")[0]]
    headers = {"X-Error-Code": code} if code else {}
    request = http.Request("GET", "https://huggingface.co/api/models/user/model")
    return http.Response(status, headers=headers, request=request)


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        (lambda e: e.RepositoryNotFoundError("x", response=response(401)), FileNotFoundError,
         "user/model is neither a folder here nor a model on the"),
        (lambda e: e.RevisionNotFoundError("x", response=response(404)), FileNotFoundError,
         "user/model at revision 'v9' is neither"),
        (lambda e: e.GatedRepoError("x", response=response(403)), PermissionError, "is gated"),
        (lambda e: e.LocalEntryNotFoundError("x"), ConnectionError, "nor in the Hugging"),
        (lambda e: e.OfflineModeIsEnabled("x"), ConnectionError, "HF_HUB_OFFLINE"),
        (lambda e: e.HFValidationError("x"), FileNotFoundError, "nor a valid name on the hub"),
    ],
)  # fmt: skip
def test_names_rejected_by_the_hub(monkeypatch, raised, kind, message):
    def snapshot_download(*args, **kwargs):
        raise raised(hub.errors)

    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    revision = "v9" if "v9" in message else None
    with pytest.raises(kind, match=message):
        ConditionalPosePrior.from_pretrained("user/model", revision=revision)


REACH = (
    "from flowprior import ConditionalPosePrior\n"
    "try:\n    print(float(ConditionalPosePrior.from_pretrained('user/model').target_noise))\n"
    "except (OSError, ValueError) as error:\n    print(type(error).__name__, error)\n"
)


def reach(cache, **environment):
    """What a new process says that reaches for user/model with the real package."""
    environment = (
        os.environ | {"HF_HOME": str(cache), "HF_HUB_DISABLE_TELEMETRY": "1"} | environment
    )
    return run_python(REACH, env=environment)


@pytest.mark.parametrize(
    "environment", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}], ids=str
)
def test_without_network(tmp_path, environment):
    said = reach(tmp_path, **environment)
    assert said.startswith(
        "ConnectionError user/model is neither a folder here nor in the Hugging Face"
    )


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub's protocol as one download takes."""

    folder = None
    sha = "0123456789abcdef0123456789abcdef01234567"

    def do_GET(self):
        path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path)
        if path.startswith("/api/models/user/model/tree/"):
            entries = [
                {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": file.name}
                for file in sorted(self.folder.iterdir())
            ]
            return self.answer(json.dumps(entries).encode())
        if path.startswith("/api/models/user/model"):
            siblings = [{"rfilename": file.name} for file in sorted(self.folder.iterdir())]
            info = {"id": "user/model", "sha": self.sha, "siblings": siblings}
            return self.answer(json.dumps(info).encode())
        if path.startswith("/user/model/resolve/"):
            file = self.folder / path.rpartition("/")[2]
            return self.answer(file.read_bytes(), ETag=f'"{file.name}"')
        return self.answer(b"", 404, **{"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def answer(self, content, status=200, **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", self.sha)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


def test_downloaded_by_the_real_package_and_cached(tmp_path):
    make_prior(target_noise=0.125).save_pretrained(tmp_path / "model")
    handler = type("Handler", (Hub,), {"folder": tmp_path / "model"})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        assert reach(tmp_path / "cache", HF_ENDPOINT=endpoint) == "0.125\n"
        handler.folder = None
        server.shutdown()
    assert reach(tmp_path / "cache", HF_HUB_OFFLINE="1") == "0.125\n"


def test_without_the_package_folders_work_and_the_extra_is_named(prior, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert same(prior, ConditionalPosePrior.from_pretrained(folder))
    with pytest.raises(ImportError, match=r"user/model is not a folder.*flowprior\[hub\]"):
        ConditionalPosePrior.from_pretrained("user/model")
    with pytest.raises(ImportError, match=r"flowprior\[hub\]"):
        prior.push_to_hub("user/model")
    with pytest.raises(ImportError, match=r"flowprior\[hub\]"):
        prior.save_pretrained(folder.parent / "new", push_to_hub=True)
    assert not (folder.parent / "new").exists()


def test_the_package_is_not_imported_for_folders(folder):
    code = (
        "import sys\nfrom flowprior import ConditionalPosePrior\n"
        f"prior = ConditionalPosePrior.from_pretrained({str(folder)!r})\n"
        f"prior.save_pretrained({str(folder)!r})\n"
        "assert 'huggingface_hub' not in sys.modules, 'imported'\n"
    )
    run_python(code)
