"""Recipes: what they say is what is done, and what cannot be done is refused by name."""

from pathlib import Path

import pytest

from cxrfpn.data.cohort import PatientsProtocol
from cxrfpn.training.recipe import Cycle, RecipeError, read_recipe

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
CYCLE = "source: phantom:10\ncycles: [{epochs: 1, image_size: 64, "
LEAST = "source: phantom:10\ncycles: [{epochs: 1, image_size: 64}]\n"


def read(tmp_path: Path, text: str, *overrides: str):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return read_recipe(path, overrides)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_of_ours_reads_and_survives_being_written(path, tmp_path):
    recipe = read_recipe(path)
    assert read(tmp_path, recipe.as_yaml()) == recipe


def test_the_reports_recipe_says_what_the_report_says():
    recipe = read_recipe(RECIPES / "report.yaml")
    assert [cycle.epochs for cycle in recipe.cycles] == [5, 5, 5]
    assert recipe.cycles[2].pos_weight == {"Pneumonia": 4.5, "Fibrosis": 3.8, "Consolidation": 4.3}
    assert (recipe.batch_size, recipe.learning_rate, recipe.schedule) == (160, 1e-3, "plateau")
    assert (recipe.choose_by, recipe.backbone_weights, recipe.cohort["protocol"]) == ("macro_f1", "imagenet", "report")
    config = recipe.config()
    assert (config.image_size, config.block_config, config.pyramid_channels) == (224, (6, 12, 24, 16), 256)
    assert not config.rectified and read_recipe(RECIPES / "nih.yaml").config().rectified


def test_every_fraction_of_the_reports_cohort_is_a_key(tmp_path):
    cohort = "{protocol: report, undersampling: {No Finding: 0.2}, mirror_below: 0, train_cut: {}}"
    protocol = read(tmp_path, LEAST, "--cohort", cohort).protocol()
    assert (protocol.undersampling, protocol.mirror_below, protocol.train_cut) == ({"No Finding": 0.2}, 0, {})


def test_cycles_follow_each_other():
    recipe = read_recipe(RECIPES / "report.yaml")
    assert recipe.epochs == 15
    assert recipe.cycle_of(9) is recipe.cycles[1] and recipe.cycle_of(10) is recipe.cycles[2]


def test_any_key_can_be_changed_on_the_command_line(tmp_path):
    recipe = read(
        tmp_path, LEAST, "--learning-rate", "3e-4", "--loss.label_smoothing=0.1", "--cohort",
        "{protocol: patients, test: 0.5}", "--cycles", "[{epochs: 3, image_size: 96}]", "--compile", "true",
    )  # fmt: skip
    assert (recipe.learning_rate, recipe.loss.label_smoothing, recipe.compile) == (3e-4, 0.1, True)
    assert recipe.cycles == (Cycle(3, 96),)
    assert recipe.protocol() == PatientsProtocol(test=0.5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LEAST + "dropuot: 0.3", "unknown key dropuot; known are source"),
        (LEAST + "loss: {kind: x}", "unknown key loss.kind"),
        (LEAST + "cohort: {protocol: patients, tset: 1}", "unknown key cohort.tset"),
        (LEAST + "cohort: {protocol: random}", "cohort: protocol is one of official, report, patients"),
        (CYCLE + "judged_size: null}]", "cycles[0].judged_size: is called validation_size now"),
        (LEAST.replace("phantom", "unlabelled"), "unlabelled:10: has no labels to validate on"),
        (LEAST + "objective: findings", "objective: no longer exists"),
        (LEAST + "batch_size: 4.5", "batch_size: must be int, not 4.5"),
        (LEAST + "batch_size: true", "batch_size: must be int, not True"),
        (LEAST + "learning_rate: fast", "learning_rate: must be float, not 'fast'"),
        (LEAST + "optimizer: sgd", "optimizer: must be one of adam, adamw, not 'sgd'"),
        (LEAST + "batch_size: 0", "batch_size: must be over 0"),
        (LEAST + "batch_size: 4\naccumulation: 5", "accumulation: must not be above batch_size"),
        (LEAST + "warmup: 2", "warmup: must lie in 0 to 1"),
        (LEAST + "network: {width: 3}", "CxrFpnConfig has no {'width'}"),
        (LEAST + "augmentation: {blur_sigma: [1]}", "augmentation.blur_sigma: needs 2 values, not 1"),
        ("source: phantom:10\ncycles: [{epochs: 1}]", "image_size"),
        ("source: phantom:10\ncycles: []", "cycles: needs at least one"),
        ("source: phantom:10", "cycles"),
        ("source: phantom:10\ncycles: [{epochs: 1, image_size: 32}]", "image_size must be 64 or more"),
        (CYCLE + "validation_size: 32}]", "validation_size must be 64"),
        (CYCLE + "pos_weight: {Flu: 2}}]", "what is no finding"),
        ("- a list", "is not a mapping"),
        ("a: [", "is not YAML"),
    ],
)  # fmt: skip
def test_what_cannot_be_followed_is_one_line_that_names_file_and_key(tmp_path, text, said):
    with pytest.raises(RecipeError) as caught:
        read(tmp_path, text)
    assert said in str(caught.value) and "recipe.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_a_word_that_is_no_key_and_a_file_that_is_not_there_are_refused(tmp_path):
    with pytest.raises(RecipeError, match="fast: give recipe keys as --key value"):
        read(tmp_path, LEAST, "fast")
    with pytest.raises(RecipeError, match="gone.yaml: No such file"):
        read_recipe(tmp_path / "gone.yaml")
