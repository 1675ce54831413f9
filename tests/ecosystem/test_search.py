"""optuna: hyperparameter search of the plain `Trainer`."""

import pytest
from transformers import Trainer, TrainingArguments

from deepavfusion import DeepAVFusionForAudioVisualClassification
from tests.modeling_deepavfusion.cases import make_model
from tests.training.test_plain_trainer import Samples

pytestmark = pytest.mark.ecosystem


def test_hyperparameter_search(tmp_path):
    def build(trial=None):
        return make_model(DeepAVFusionForAudioVisualClassification, num_hidden_layers=1)

    data = Samples(build())
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=2, use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no"
    )
    trainer = Trainer(model_init=build, args=arguments, train_dataset=data, eval_dataset=data)
    best = trainer.hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": trial.suggest_categorical("learning_rate", [1e-5, 1e-2])},
        compute_objective=lambda metrics: metrics["eval_loss"],
        backend="optuna",
        n_trials=2,
        direction="minimize",
    )
    assert best.hyperparameters["learning_rate"] in (1e-5, 1e-2)
    assert 0 < best.objective < 10
