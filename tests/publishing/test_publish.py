"""publish.py on a Hub of our own: each repository gets what belongs to it, and what is there is not sent again."""

from huggingface_hub import ModelCard

from tests.hubs.uploads import Commit
from tests.publishing.conftest import KEPT, MODEL, ROOT, SPACE, refused


def test_each_repository_gets_what_belongs_to_it(hub, publish, run, tree):
    code, out, err = publish()
    assert code == 0, err
    model, space = hub.content("models", MODEL), hub.content("spaces", SPACE)
    there = {path.relative_to(run).as_posix(): path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert {".gitattributes", "README.md"} <= set(model) and {"model.safetensors", "pipeline_cxrfpn.py"} <= set(there)
    assert {name: model[name] for name in set(model) - {".gitattributes", "README.md"}} == {
        name: there[name] for name in set(there) - KEPT
    }
    demo = {path.relative_to(tree).as_posix() for path in tree.glob("demo/**/*") if path.is_file()}
    modules = {path.name for path in ROOT.glob("*_cxrfpn.py")}
    assert set(space) - {".gitattributes"} == demo | modules | {"app.py", "README.md", "requirements.txt"}
    assert space["README.md"] == (tree / "space" / "README.md").read_bytes()
    pin = f"{MODEL}@{hub.repos['models', MODEL].commit}"
    assert hub.variables[SPACE] == {"CXR_MODEL": pin} and pin in out
    assert [(commit.kind, commit.repo) for commit in hub.commits] == [("models", MODEL), ("spaces", SPACE)]
    assert not hub.private


def test_the_card_is_of_the_hub(hub, publish):
    """Its lines of Python load the model from there, and it shows no picture that is not."""
    assert publish()[0] == 0
    card = ModelCard(hub.content("models", MODEL)["README.md"].decode())
    assert f'model="{MODEL}"' in card.text and "seed: 7" in card.text
    assert "plots/auroc.png" in card.text and "examples.png" not in card.text
    assert card.data.library_name == "transformers" and card.data.model_name == MODEL


def test_only_what_has_changed_goes(hub, publish, run, tree):
    assert publish()[0] == 0
    first = hub.repos["models", MODEL].commit
    hub.requests.clear()
    code, out, _ = publish()
    assert code == 0 and f"model {MODEL}: nothing has changed since {first}" in out
    assert len(hub.commits) == 2 and all(request.method == "GET" for request in hub.requests)

    (hub.repos["models", MODEL].folder / "somebody.txt").write_text("not of ours")
    (run / "configuration.txt").write_text("took 3 minutes\n")
    (run / "plots" / "training_loss.png").unlink()
    (tree / "demo" / "page.css").write_text("body {}")
    (tree / "demo" / "calls.md").unlink()
    assert publish()[0] == 0
    second = hub.repos["models", MODEL].commit
    assert hub.commits[2:] == [
        Commit("models", MODEL, "Publish tiny", ["configuration.txt"], ["plots/training_loss.png"]),
        Commit("spaces", SPACE, f"Show {MODEL}@{second}", ["demo/page.css"], ["demo/calls.md"]),
    ]
    assert hub.variables[SPACE] == {"CXR_MODEL": f"{MODEL}@{second}"} and second != first


def test_a_dry_run_tells_and_does_nothing(hub, publish, run):
    code, out, err = publish("--dry-run")
    assert code == 0, err
    assert not hub.repos and not hub.commits
    lines = [line.split() for line in out.splitlines()]
    size = (run / "config.json").stat().st_size
    assert ["new", f"{size / 1000:.2f}kB", "config.json"] in lines and "app.py" in [line[-1] for line in lines]
    assert f"CXR_MODEL = {MODEL}@its next commit" in out
    assert publish()[0] == 0
    (run / "config.json").write_text((run / "config.json").read_text() + "\n")
    _, out, _ = publish("--dry-run")
    assert "note:" not in out
    differing = [line.split() for line in out.splitlines() if line.startswith(("  new", "  changed", "  deleted"))]
    assert differing == [["changed", f"{(size + 1) / 1000:.2f}kB", "config.json"]] and len(hub.commits) == 2


def test_modules_older_than_the_demo_are_told_of(hub, publish, run):
    (run / "modeling_cxrfpn.py").write_text("# as it was\n")
    _, out, _ = publish("--dry-run")
    assert "note: the run's modeling_cxrfpn.py differ from this project's" in out


def test_private_means_both(hub, publish):
    code, out, _ = publish("--private")
    assert code == 0 and hub.private == {("models", MODEL), ("spaces", SPACE)}
    assert "give the Space a secret HF_TOKEN" in out
    hub.private.clear()
    assert f"{MODEL}: is public on the Hub" in refused(publish("--private"))
