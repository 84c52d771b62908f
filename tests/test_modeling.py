"""The network against an independent forward pass, its saving and loading, and its loss."""

import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision

from configuration_cxrfpn import CxrFpnConfig
from modeling_cxrfpn import CxrFpnForImageClassification


def reference_forward(weights: dict, pixels: torch.Tensor, patient: torch.Tensor) -> dict[str, torch.Tensor]:
    """The network written again from the report: torchvision's whole DenseNet-121 with its blocks overheard, and the
    pyramid, pooling, branches and head spelt out operation by operation. Weights with normalised pyramid convolutions
    are of the rectified network."""
    rectified = "pyramid.inner_blocks.0.1.weight" in weights
    densenet = torchvision.models.densenet121(weights=None).eval()
    own = {key.removeprefix("backbone."): value for key, value in weights.items() if key.startswith("backbone.")}
    missing, unexpected = densenet.load_state_dict(own, strict=False)
    unused = {"classifier"} if rectified else {"classifier", "features.norm5"}
    assert not unexpected and {key.rsplit(".", 1)[0] for key in missing} == unused
    heard: dict[str, torch.Tensor] = {}
    for name in ("denseblock2", "denseblock3", "denseblock4"):
        getattr(densenet.features, name).register_forward_hook(lambda _m, _i, out, name=name: heard.update({name: out}))
    densenet(pixels)

    def normalise(values: torch.Tensor, key: str) -> torch.Tensor:
        mean, var, scale, shift = (
            weights[f"{key}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (values - mean) / torch.sqrt(var + 1e-5) * scale + shift

    def convolve(values: torch.Tensor, key: str, padding: int) -> torch.Tensor:
        result = F.conv2d(values, weights[f"pyramid.{key}.0.weight"], weights.get(f"pyramid.{key}.0.bias"), 1, padding)
        return normalise(result, f"pyramid.{key}.1") if rectified else result

    def linear(values: torch.Tensor, key: str) -> torch.Tensor:
        return values @ weights[f"{key}.weight"].T + weights[f"{key}.bias"]

    c3, c4, c5 = heard["denseblock2"], heard["denseblock3"], heard["denseblock4"]
    if rectified:  # by DenseNet's own normalisation behind each of the blocks
        norms = (f"backbone.features.{name}" for name in ("transition2.norm", "transition3.norm", "norm5"))
        c3, c4, c5 = (normalise(c, norm).clamp_min(0) for c, norm in zip((c3, c4, c5), norms, strict=True))
    m5 = convolve(c5, "inner_blocks.2", 0)
    m4 = convolve(c4, "inner_blocks.1", 0) + m5.repeat_interleave(2, 2).repeat_interleave(2, 3)
    m3 = convolve(c3, "inner_blocks.0", 0) + m4.repeat_interleave(2, 2).repeat_interleave(2, 3)
    levels = [convolve(m, f"layer_blocks.{index}", 1) for index, m in enumerate((m3, m4, m5))]
    if rectified:
        levels = [level.clamp_min(0) for level in levels]
    pooled = torch.cat([level.mean(dim=(2, 3)) for level in levels], dim=1)
    known = torch.nan_to_num(patient)
    unknown = torch.isnan(patient).float() @ weights["patient_branch.unknown.weight"].T
    person = torch.relu(linear(known, "patient_branch.known") + unknown)
    joined = torch.cat([torch.relu(linear(pooled, "image_branch")), person], dim=1)
    logits = linear(torch.relu(linear(joined, "head.0")), "head.3")
    return {"c3": c3, "c4": c4, "c5": c5, "pooled": pooled, "joined": joined, "logits": logits}


@pytest.mark.parametrize("rectified", [False, True])
def test_the_network_is_the_reports_and_ours_rectified(patients, rectified):
    torch.manual_seed(3)
    model = CxrFpnForImageClassification(CxrFpnConfig(rectified=rectified))
    pixels = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        model.train()(pixels)  # moves the running statistics, which would otherwise normalise nothing
        expected = reference_forward(model.eval().state_dict(), pixels, patients)
        logits = model(pixels, patients).logits
    # Channels and strides as the dense blocks really give them; 768 pooled features; 256 + 8 fused.
    assert [expected[key].shape[1:] for key in ("c3", "c4", "c5")] == [(512, 12, 12), (1024, 6, 6), (1024, 3, 3)]
    assert expected["pooled"].shape[1] == 768 and expected["joined"].shape[1] == 264
    torch.testing.assert_close(logits, expected["logits"], rtol=1e-4, atol=1e-5)
    assert logits.std() > 0.01  # the agreement is of something
    parameters = sum(parameter.numel() for parameter in model.parameters())
    report = 9_612_846 + 3 * 8  # with the vectors of the unknown patient
    # The report's lacks the last norm, which it never used; ours has norms in place of the pyramid's biases.
    assert parameters == (report + 6 * 256 if rectified else report - 2 * 1024)


@pytest.mark.parametrize("rectified", [False, True])
def test_from_blocks_to_means_the_report_is_linear_and_ours_is_not(tiny_config, radiographs, rectified):
    model = CxrFpnForImageClassification(tiny_config(rectified=rectified)).eval()
    with torch.no_grad():
        one, other = model.backbone(radiographs), model.backbone(radiographs.flip(0))

        def pooled(levels: list[torch.Tensor]) -> torch.Tensor:
            model.backbone.forward = lambda _: levels
            return model.pool(model.pyramid_levels(radiographs))

        apart = pooled(one) + pooled(other) - pooled([torch.zeros_like(level) for level in one])
        together = pooled([a + b for a, b in zip(one, other, strict=True)])
    assert torch.allclose(apart, together, atol=1e-5) != rectified


def test_the_loss_is_weighted_binary_cross_entropy(tiny_config, radiographs):
    weight = np.linspace(1, 4, 14)
    model = CxrFpnForImageClassification(tiny_config(pos_weight=weight.tolist())).eval()
    labels = (np.arange(28).reshape(2, 14) % 3 == 0).astype(float)
    output = model(radiographs, labels=torch.tensor(labels))
    p = 1 / (1 + np.exp(-output.logits.detach().double().numpy()))
    expected = -(weight * labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean()
    assert output.loss.item() == pytest.approx(expected, rel=1e-5)
    assert model(radiographs).loss is None


def test_a_missing_patient_is_unknown_and_not_a_newborn_boy(tiny_model, radiographs):
    unknown = torch.full((2, 3), torch.nan)
    with torch.no_grad():
        without = tiny_model(radiographs).logits
        assert torch.equal(without, tiny_model(radiographs, unknown).logits)
        zeros = tiny_model(radiographs, torch.zeros(2, 3)).logits
        assert not torch.allclose(without, zeros)
        for column in range(3):
            partly = torch.zeros(2, 3)
            partly[:, column] = torch.nan
            assert not torch.allclose(tiny_model(radiographs, partly).logits, zeros)


def test_unknown_inputs_train(tiny_model, radiographs, patients):
    tiny_model.train()(radiographs, patients, torch.ones(2, 14)).loss.backward()
    gradients = [parameter.grad for parameter in tiny_model.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert tiny_model.patient_branch.unknown.weight.grad[:, [0, 2]].abs().sum() > 0


RELOAD = """
import sys, torch
from transformers import AutoModel, AutoModelForImageClassification
inputs = torch.load(sys.argv[2])
for auto in (AutoModel, AutoModelForImageClassification):
    model = auto.from_pretrained(sys.argv[1], trust_remote_code=True)
    assert type(model).__name__ == "CxrFpnForImageClassification" and not model.training
    with torch.no_grad():
        assert torch.equal(model(inputs["pixels"], inputs["patients"]).logits, inputs["logits"]), auto
    assert model.finding_maps(inputs["pixels"], None, ["Mass"]).shape == (2, 1, 8, 8)
print("same")
"""


def test_reloaded_and_copied_it_gives_the_same_logits_bit_for_bit(
    tiny_model, radiographs, patients, tmp_path, run_python
):
    tiny_model.save_pretrained(tmp_path / "saved")
    shutil.copytree(tmp_path / "saved", tmp_path / "copy")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the other process: the order of additions depends on them
    with torch.no_grad():
        logits = tiny_model(radiographs, patients).logits
    torch.set_num_threads(threads)
    torch.save({"pixels": radiographs, "patients": patients, "logits": logits}, tmp_path / "inputs.pt")
    for folder in ("saved", "copy"):
        # In a process of its own, elsewhere: nothing of this repository may be within reach.
        done = run_python("-c", RELOAD, tmp_path / folder, tmp_path / "inputs.pt", cwd=tmp_path)
        assert done.stdout.strip() == "same", done.stderr[-2000:]


def test_half_precision_storage_loads_as_float32(tiny_model, radiographs, tmp_path):
    with torch.no_grad():
        logits = tiny_model(radiographs).logits
    tiny_model.half().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "dtype": "float32"}))
    loaded = CxrFpnForImageClassification.from_pretrained(tmp_path)
    assert loaded.dtype == torch.float32
    with torch.no_grad():
        torch.testing.assert_close(loaded(radiographs).logits, logits, rtol=0, atol=5e-3)


def test_bf16_weights_and_autocast_work(tiny_model, radiographs, patients):
    with torch.no_grad():
        exact = tiny_model(radiographs, patients).logits
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = tiny_model(radiographs, patients).logits
        low = tiny_model.bfloat16()(radiographs.bfloat16(), patients).logits
    assert low.dtype == torch.bfloat16
    for logits in (mixed, low):
        torch.testing.assert_close(logits.float(), exact, rtol=0, atol=0.05)


def test_activation_checkpointing_changes_nothing_but_memory(tiny_config, radiographs, patients):
    results = []
    for recompute in (False, True):
        torch.manual_seed(0)
        model = CxrFpnForImageClassification(tiny_config(dropout=0.0)).train()
        if recompute:
            model.activation_checkpointing_enable()
        loss = model(radiographs, patients, torch.ones(2, 14)).loss
        loss.backward()
        gradients = {f"gradient of {name}": parameter.grad for name, parameter in model.named_parameters()}
        results.append({"loss": loss.detach(), **gradients, **dict(model.named_buffers())})
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, msg=lambda text, name=name: f"{name}: {text}")


def test_it_compiles_as_one_graph(tiny_model, radiographs, patients):
    compiled = torch.compile(tiny_model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(radiographs, patients).logits, tiny_model(radiographs, patients).logits)


@pytest.mark.slow
def test_it_compiles_with_the_default_backend(tiny_model, radiographs, patients):
    with torch.no_grad():
        torch.testing.assert_close(
            torch.compile(tiny_model)(radiographs, patients).logits,
            tiny_model(radiographs, patients).logits,
            rtol=1e-3,
            atol=1e-4,
        )


def test_scores_under_autocast_are_as_fine_as_without(tiny_model, radiographs):
    """bf16 has 8 bits: were the head computed in it, all logits would be multiples of 1/128 or coarser."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = tiny_model(radiographs).logits
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, logits.bfloat16().float())


def test_wrong_inputs_are_refused_in_one_line(tiny_model, radiographs):
    for arguments, said in [
        ((radiographs[0],), "pixel_values must be"),
        ((radiographs[:, :1],), "pixel_values must be"),
        (((radiographs * 10).byte(),), "use the image processor"),
        ((radiographs, torch.zeros(2, 2)), r"patient must be \[2, 3\]"),
        ((radiographs, None, torch.zeros(2, 13)), r"labels must be \[2, 14\]"),
    ]:
        with pytest.raises(ValueError, match=said):
            tiny_model(*arguments)
    with pytest.raises(ValueError, match="no finding is called 'Cold'"):
        tiny_model.finding_maps(radiographs, None, ["Cold"])


def test_raw_pixels_are_warned_about(tiny_model, radiographs, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr("modeling_cxrfpn.logger.warning_once", said.append)
    tiny_model(radiographs)
    assert not said
    tiny_model(torch.rand(1, 3, 64, 64) * 255)
    assert len(said) == 1 and "raw pixels" in said[0]


def test_without_pyramid_and_patient_it_is_a_plain_densenet(tiny_config, radiographs, patients, tmp_path):
    model = CxrFpnForImageClassification(tiny_config(pyramid_channels=0, patient_features=0)).eval()
    last = model.backbone(radiographs)[-1]
    assert torch.equal(last, torch.relu(last))
    pooled = last.mean(dim=(2, 3))
    expected = model.head(torch.relu(model.image_branch(pooled)))
    torch.testing.assert_close(model(radiographs, patients).logits, expected)
    assert torch.equal(model(radiographs, patients).logits, model(radiographs).logits)
    assert model.finding_maps(radiographs, patients, ["Mass"]).shape[:2] == (len(radiographs), 1)
    model.save_pretrained(tmp_path)
    again = CxrFpnForImageClassification.from_pretrained(tmp_path)
    assert torch.equal(again(radiographs).logits, model(radiographs).logits)
