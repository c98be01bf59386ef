"""Callbacks of Lightning and of Hugging Face's Trainer, with the real libraries: the training stays the same to the bit."""

import importlib

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from landscape.errors import UsageError
from landscape.watching import MemorizationAlarm
from landscape.watching.late_watch import LateWatch


@pytest.fixture(autouse=True)
def torchvision_first() -> None:
    """Both libraries import torchvision, which beside a CPU build of torch needs its missing operators tolerated."""
    importlib.import_module("landscape.tasks.torchvision_import")


def batch(n: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 5, generator=generator), torch.randint(0, 3, (n,), generator=generator)


def test_mistakes_are_told_when_a_callback_is_made():
    """Long before training begins: a queue of hours may lie between."""

    class Ours(LateWatch):
        framework, installed = "ours", True

    with pytest.raises(TypeError, match=r"^Ours got an unexpected keyword argument 'evry'; did you mean every\?$"):
        Ours(nn.CrossEntropyLoss(), batch(), evry=5)
    for options, words in (
        ({"every": 0}, "expected every as 1 step or more"),
        ({"budget": 5}, "expected a budget between 0 and 1"),
        ({"measures": ["lamda_max"]}, "found 'lamda_max'; did you mean lambda_max?"),
        ({"measures": "keskar:eps=x"}, "expected a number from 0 for keskar:eps"),
    ):
        with pytest.raises(UsageError, match=words):
            Ours(nn.CrossEntropyLoss(), batch(), **options)
    watch = Ours(nn.CrossEntropyLoss(), batch(), every=2, batch_size=8, alarm=MemorizationAlarm())
    watch.begin(nn.Linear(5, 3), watch._options)
    watch.check(0)
    assert "trace/(model)" in watch.history.names


@pytest.mark.filterwarnings("ignore")  # of Lightning itself, on workers and on a missing logger
def test_lightning(tmp_path):
    lightning = pytest.importorskip("lightning.pytorch", reason="the extra [watch] is not installed")
    from lightning.pytorch.loggers import CSVLogger

    from landscape.watching.lightning_callback import LightningWatch

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x)

        def training_step(self, pair: list[torch.Tensor], index: int) -> torch.Tensor:
            return nn.functional.cross_entropy(self(pair[0]), pair[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=0.01)

    def fitted(callbacks: list[object]) -> dict[str, torch.Tensor]:
        torch.manual_seed(1)
        module = Module()
        trainer = lightning.Trainer(
            max_epochs=2, accelerator="cpu", logger=CSVLogger(tmp_path, name="", version="run"), callbacks=callbacks,
            enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, log_every_n_steps=1,
        )  # fmt: skip
        trainer.fit(module, DataLoader(TensorDataset(*batch()), batch_size=16, shuffle=True))
        return module.state_dict()

    plain = fitted([])
    callback = LightningWatch(
        nn.CrossEntropyLoss(), batch(), every=2, measures=["lambda_max", "preconditioned_lambda_max", "trace"]
    )
    assert len(callback.history) == 0
    watched = fitted([callback])
    assert callback.watch._pace.steps == 6
    assert all(torch.equal(plain[name], watched[name]) for name in plain)
    history = callback.history
    assert history.steps.tolist() == [1, 3, 5]
    assert history.optimizer.startswith("AdamW")
    assert history.edges("preconditioned_lambda_max").tolist() == pytest.approx([3800 * (1 - 0.01 * 0.01 / 2)] * 3)
    text = (tmp_path / "run" / "metrics.csv").read_text()
    assert "landscape/lambda_max" in text.splitlines()[0]
    assert f"{history.values('trace')[1]}"[:9] in text


@pytest.mark.filterwarnings("ignore")  # of transformers and accelerate, on devices and pinned memory
def test_trainer(tmp_path):
    transformers = pytest.importorskip("transformers", reason="the extra [watch] is not installed")
    pytest.importorskip("accelerate", reason="the extra [watch] is not installed")
    from landscape.watching.transformers_callback import TrainerWatch

    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=8, num_labels=3,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(2)
    ids, labels = torch.randint(0, 20, (24, 6), generator=generator), torch.randint(0, 3, (24,), generator=generator)
    rows = [{"input_ids": i, "labels": y} for i, y in zip(ids, labels, strict=True)]

    def fitted(callbacks: list[object]) -> dict[str, torch.Tensor]:
        torch.manual_seed(3)
        model = transformers.BertForSequenceClassification(config)
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path), num_train_epochs=2, per_device_train_batch_size=8, report_to=[], save_strategy="no",
            use_cpu=True, disable_tqdm=True, logging_steps=100, seed=4,
        )  # fmt: skip
        transformers.Trainer(model, arguments, train_dataset=rows, callbacks=callbacks).train()
        return model.state_dict()

    plain = fitted([])
    callback = TrainerWatch(nn.CrossEntropyLoss(), {"input_ids": ids, "labels": labels}, every=2, measures=["lambda_max"])
    watched = fitted([callback])
    assert all(torch.equal(plain[name], watched[name]) for name in plain)
    assert callback.watch._pace.steps == 6
    assert callback.history.steps.tolist() == [1, 3, 5]
    assert callback.history.optimizer.startswith("AdamW")
    assert all(e is not None and e.converged for e in callback.history.estimates("lambda_max"))
