"""What people do with a transformers model, done with this one: each row of the table in docs/transformers.md."""

import copy
from collections.abc import Callable

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import AutoModel, AutoModelForImageClassification, Trainer, TrainingArguments, pipeline

from configuration_cxrfpn import CxrFpnConfig
from image_processing_cxrfpn import CxrFpnImageProcessor
from loading_cxrfpn import load_network, load_pipeline
from modeling_cxrfpn import CxrFpnForImageClassification
from pipeline_cxrfpn import ChestXrayFindingsPipeline


class Eight(Dataset):
    """Eight radiographs of noise with labels; `unknown` of these are left out, as Trainer marks them."""

    def __init__(self, unknown: bool = False):
        random = torch.Generator().manual_seed(0)
        self.pixels = torch.randn(8, 3, 64, 64, generator=random)
        self.labels = (torch.rand(8, 14, generator=random) < 0.2).float()
        if unknown:
            self.labels[torch.rand(8, 14, generator=random) < 0.5] = -100

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"pixel_values": self.pixels[index], "labels": self.labels[index]}


@pytest.fixture
def steps(tmp_path, tiny_model) -> Callable[..., dict[str, float]]:
    """One step of Trainer over the eight: its loss and the norm of its gradient."""

    def run(batch: int, accumulation: int, unknown: bool = False, **settings: object) -> dict[str, float]:
        model = copy.deepcopy(tiny_model)
        for module in model.modules():  # statistics of a batch and dropout differ between batches
            if isinstance(module, nn.BatchNorm2d | nn.Dropout):
                module.train = lambda mode=True, module=module: module
        arguments = TrainingArguments(
            str(tmp_path), per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation, max_steps=1,
            learning_rate=0.0, logging_steps=1, report_to=[], use_cpu=True, max_grad_norm=1e9, save_strategy="no",
            disable_tqdm=True, **settings,
        )  # fmt: skip
        trainer = Trainer(model=model, args=arguments, train_dataset=Eight(unknown))
        trainer.train()
        (logged,) = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
        return {name: logged[name] for name in ("loss", "grad_norm")}

    return run


@pytest.mark.parametrize("unknown", [False, True])
def test_accumulated_batches_are_one_batch(steps, unknown):
    whole = steps(8, 1, unknown)
    assert whole["grad_norm"] > 0.01
    for batch, accumulation in ((4, 2), (2, 4)):
        assert steps(batch, accumulation, unknown) == pytest.approx(whole, rel=1e-3)


def test_gradient_checkpointing_by_trainer(steps):
    assert steps(8, 1, gradient_checkpointing=True) == pytest.approx(steps(8, 1), rel=1e-3)


def test_unknown_labels_do_not_count(tiny_model):
    data = Eight()
    unknown = torch.zeros_like(data.labels, dtype=torch.bool)
    unknown[:, 3:] = True
    only = -(data.labels * (p := tiny_model(data.pixels).logits).sigmoid().log()
             + (1 - data.labels) * (-p).sigmoid().log())[:, :3].mean()  # fmt: skip
    for mark in (torch.nan, -1, -100):
        loss = tiny_model(data.pixels, labels=data.labels.masked_fill(unknown, mark)).loss
        assert loss.item() == pytest.approx(only.item(), rel=1e-5)
    assert tiny_model(data.pixels, labels=torch.full((8, 14), -1.0)).loss == 0


def test_predictions_of_trainer_are_the_logits(tmp_path, tiny_model):
    arguments = TrainingArguments(str(tmp_path), report_to=[], use_cpu=True, disable_tqdm=True)
    done = Trainer(model=tiny_model, args=arguments).predict(Eight())
    assert done.predictions.shape == (8, 14) and done.label_ids.shape == (8, 14)


def test_lora_trains_merges_and_saves(tiny_model, radiographs, tmp_path):
    adapted = get_peft_model(copy.deepcopy(tiny_model), LoraConfig(target_modules=["image_branch", "head.0"], r=2))
    optimizer = torch.optim.SGD(adapted.parameters(), lr=1.0)
    for _ in range(2):
        adapted(pixel_values=radiographs, labels=torch.ones(2, 14)).loss.backward()
        optimizer.step()
    frozen = dict(tiny_model.named_parameters())["head.3.weight"]
    assert torch.equal(adapted.base_model.model.head[3].weight, frozen)
    with torch.no_grad():
        expected = adapted.eval()(pixel_values=radiographs).logits
    assert not torch.allclose(expected, tiny_model(radiographs).logits, atol=1e-3)
    merged = adapted.merge_and_unload()
    merged.save_pretrained(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(load_network(str(tmp_path))(radiographs).logits, expected, atol=1e-5, rtol=1e-4)


def test_quantised_linear_layers(tiny_model, radiographs):
    quantised = torch.ao.quantization.quantize_dynamic(copy.deepcopy(tiny_model), {nn.Linear}, dtype=torch.qint8)
    with torch.no_grad():
        scores, expected = (model(radiographs).logits.sigmoid() for model in (quantised, tiny_model))
    assert type(quantised.head[0]).__module__.startswith("torch.ao") and (scores - expected).abs().max() < 0.05
    pipe = ChestXrayFindingsPipeline(
        model=quantised, image_processor=CxrFpnImageProcessor(size={"height": 64, "width": 64})
    )
    assert len(pipe(radiographs[0])) == 14


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_on_the_cpu(package, drawing, dtype):
    pipe = pipeline("chest-xray-findings", model=str(package), trust_remote_code=True, dtype=dtype)
    assert str(pipe.model.dtype) == f"torch.{dtype}"
    expected = {finding["label"]: finding["score"] for finding in load_pipeline(str(package))(drawing)}
    assert {finding["label"]: finding["score"] for finding in pipe(drawing)} == pytest.approx(expected, abs=0.02)
    assert all(finding["map"].max() == pytest.approx(1, abs=0.01) for finding in pipe(drawing, maps=True))


def test_device_map(package, radiographs):
    model = AutoModel.from_pretrained(package, trust_remote_code=True, device_map="auto")
    with torch.no_grad():
        logits = model(radiographs.to(model.device)).logits.cpu()
        torch.testing.assert_close(logits, load_network(str(package))(radiographs).logits, rtol=1e-4, atol=1e-5)


def test_nothing_is_swallowed(tiny_model, radiographs, patients):
    with pytest.raises(TypeError, match="patients"):
        tiny_model(radiographs, patients=patients)
    with pytest.raises(ValueError, match="no attention: leave output_attentions out"):
        tiny_model(radiographs, output_attentions=True)
    output = tiny_model(radiographs, patients, output_hidden_states=True)
    assert [tuple(level.shape) for level in output.hidden_states] == [(2, 8, side, side) for side in (8, 4, 2)]
    assert output.pooler_output.shape == (2, 24) and tiny_model(radiographs).hidden_states is None
    torch.testing.assert_close(tiny_model.pool(list(output.hidden_states)), output.pooler_output)
    loss, logits, pooled = tiny_model(radiographs, patients, torch.ones(2, 14), return_dict=False)
    assert torch.equal(logits, output.logits) and torch.equal(pooled, output.pooler_output) and loss.ndim == 0
    assert type(tiny_model(radiographs, return_dict=False)) is tuple
    tiny_model.config.output_hidden_states, tiny_model.config.return_dict = True, False
    assert len(tiny_model(radiographs)) == 3


def test_the_processor_follows_its_settings(drawing):
    processor = CxrFpnImageProcessor(size={"height": 64, "width": 64})
    whole = processor(drawing, do_resize=False, do_rescale=False, do_normalize=False, crop_fraction=1.0)
    assert torch.equal(whole["pixel_values"][0, 0], torch.from_numpy(drawing))
    assert processor(drawing, do_resize=False)["pixel_values"].shape == (1, 3, 180, 144)
    assert not torch.equal(processor(drawing, resample=0)["pixel_values"], processor(drawing)["pixel_values"])
    with pytest.raises(ValueError, match="has no do_pad"):
        processor(drawing, do_pad=True)
    with pytest.raises(ValueError, match="has no do_center_crop"):
        processor(drawing, do_center_crop=True, crop_size={"height": 32, "width": 32})
    with pytest.raises(ValueError, match="images of several sizes make no batch"):
        processor([drawing, drawing[:100]], do_resize=False)


@pytest.mark.parametrize("part", ["backbone", "pyramid"])
def test_hooks_fire(tiny_model, radiographs, part):
    seen: dict[str, tuple[Tensor, ...]] = {}
    module = getattr(tiny_model, part)
    module.register_forward_hook(lambda module, inputs, output: seen.update(forward=output))
    module.register_full_backward_hook(lambda module, into, out: seen.update(backward=out))
    tiny_model(radiographs).logits[:, 4].sum().backward()
    assert len(seen["forward"]) == len(seen["backward"]) == 3
    for values, gradients in zip(seen["forward"], seen["backward"], strict=True):
        assert values.shape == gradients.shape and gradients.abs().sum() > 0


def test_features_by_pipeline(package, drawing):
    extract = pipeline("image-feature-extraction", model=str(package), trust_remote_code=True, pool=True)
    network, image = load_network(str(package)), transformers.image_utils.PIL.Image.fromarray(drawing)
    with torch.no_grad():
        expected = network(CxrFpnImageProcessor.from_pretrained(package)(image)["pixel_values"]).pooler_output
    torch.testing.assert_close(torch.tensor(extract(image)), expected, rtol=1e-4, atol=1e-5)


def test_own_labels_keep_the_rows_of_findings_that_are_known(package, radiographs, tmp_path, caplog):
    names = ("TB", "Pleural Effusion", "pulmonary mass")
    model = AutoModelForImageClassification.from_pretrained(
        package, trust_remote_code=True, id2label=dict(enumerate(names)), ignore_mismatched_sizes=True
    )
    old = load_network(str(package))
    assert model.config.findings == names and model.config.label2id["TB"] == 0
    with torch.no_grad():
        logits, before = model(radiographs).logits, old(radiographs).logits
    torch.testing.assert_close(logits[:, 1:], before[:, [2, 4]], rtol=1e-4, atol=1e-5)
    model.save_pretrained(tmp_path)
    again = load_pipeline(str(tmp_path))
    assert again.model.findings == names and {each["threshold"] for each in again(radiographs[0])} == {0.5}
    renamed = CxrFpnForImageClassification.from_pretrained(
        package, id2label=dict(enumerate(reversed(CxrFpnConfig().findings)))
    )
    with torch.no_grad():  # of as many names: by name as well, never by place
        torch.testing.assert_close(renamed(radiographs).logits.flip(1), before, rtol=1e-4, atol=1e-5)
