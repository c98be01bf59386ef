"""Text as blocks of tokens and as labelled texts: what is a sample, what counts, what is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from small_language_models import MODELS, library, saved, small, text, tokenizer

from landscape import checkpoints
from landscape.errors import MalformedError, MismatchError, UsageError
from landscape.tasks import load, read_data, resolve
from landscape.tasks.data.dataset import DataSpec
from landscape.tasks.data.text import blocks, labelled

library()
pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers and peft on each other


@pytest.fixture(scope="module")
def words():
    return tokenizer()


def found(words, path: Path, options: str = "", places: int | None = None, rows: int = 280) -> dict[str, torch.Tensor]:
    """All blocks of a file."""
    batches = blocks(DataSpec.parse(f"text:{path}{options}"), words, words=rows, places=places).batches
    return {name: torch.cat([b[name] for b in batches]) for name in batches[0]}


def test_blocks_hold_every_token_once_and_the_rest_is_padded(tmp_path, words):
    (tmp_path / "a.txt").write_text(text())
    ids = words(text())["input_ids"]
    batch = found(words, tmp_path / "a.txt", ",block=7")
    assert batch["input_ids"].shape == (-(-len(ids) // 7), 7)
    assert len(ids) % 7 > 1  # the last block is a shorter one
    counted = batch["labels"] != -100
    assert batch["labels"][counted].tolist() == ids
    assert torch.equal(batch["input_ids"][counted], batch["labels"][counted])
    assert counted[:-1].all()
    assert counted[-1].sum() == len(ids) % 7
    assert found(words, tmp_path / "a.txt", ",block=7,limit=3")["labels"].tolist() == batch["labels"][:3].tolist()


def test_a_block_that_is_one_token_is_left_out(tmp_path, words):
    ids = words(text())["input_ids"]
    (tmp_path / "a.txt").write_text(words.decode(ids[:8]))
    assert found(words, tmp_path / "a.txt", ",block=7")["labels"].shape == (1, 7)


def test_no_block_holds_two_documents(tmp_path, words):
    lines = text(5).splitlines()
    (tmp_path / "a.txt").write_text(text(5))
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": line}) for line in lines))
    batch = found(words, tmp_path / "a.txt", ",documents=lines")
    assert len(batch["labels"]) == 5
    assert [[t for t in row if t != -100] for row in batch["labels"].tolist()] == [words(line)["input_ids"] for line in lines]
    assert torch.equal(found(words, tmp_path / "a.jsonl")["labels"], batch["labels"])


def test_lines_end_at_line_feeds_alone(tmp_path, words):
    lines = ["the cat\fsees", "a red\u2028dog\x85 runs", "a tree\x1c over"]
    (tmp_path / "a.txt").write_bytes("\r\n".join([*lines, "", " "]).encode())
    batch = found(words, tmp_path / "a.txt", ",documents=lines")
    assert [[t for t in row if t != -100] for row in batch["labels"].tolist()] == [words(line)["input_ids"] for line in lines]


def test_the_longest_block_is_the_model_s(tmp_path, words):
    (tmp_path / "a.txt").write_text(text())
    assert found(words, tmp_path / "a.txt", places=16)["labels"].shape[1] == 16
    assert found(words, tmp_path / "a.txt")["labels"].shape[1] == 128
    with pytest.raises(UsageError, match="blocks of at most 16 tokens, all that the model takes, found block=17"):
        found(words, tmp_path / "a.txt", ",block=17", places=16)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"", "", "expected text of at least 2 tokens in .*, found 0"),
        (b"a", "", "expected text of at least 2 tokens in .*, found 1"),
        (b"caf\xe9", "", "expected text in UTF-8 in .*, found other bytes"),
        (b"a b c d", ",block=1", "expected blocks of at least 2 tokens, found block=1"),
        (b"a b c d", ",block=x", "expected block as a positive integer, found 'x'"),
        (b"a b c d", ",documents=two", "expected documents=file or documents=lines, found 'two'"),
        (b"a b c d", ",size=3", r"expected options of text \(block, documents, limit\), found 'size'"),
    ],
)
def test_text_that_is_refused(tmp_path, words, content, options, message):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        found(words, tmp_path / "a.txt", options)


def test_tokens_without_a_row_in_the_embedding(tmp_path, words):
    (tmp_path / "a.txt").write_text(text())
    with pytest.raises(UsageError, match=r"expected tokens below 200, the rows .*; the tokenizer is not that of this model"):
        found(words, tmp_path / "a.txt", rows=200)


def test_lines_that_are_no_documents(tmp_path, words):
    (tmp_path / "a.jsonl").write_text('{"text": "a b"}\n\n{"body": 3}')
    with pytest.raises(MalformedError, match=r"""expected "text" in line 3 of .*, found \['body'\]"""):
        found(words, tmp_path / "a.jsonl")
    (tmp_path / "a.jsonl").write_text("a b c")
    with pytest.raises(MalformedError, match=r"JSON in line 1 of .*a\.jsonl"):
        found(words, tmp_path / "a.jsonl")


def test_labelled_texts(tmp_path, words):
    lines, named = text(6).splitlines(), {"low": 0, "high": 1}
    rows = [{"text": line, "label": ["low", 1][i % 2]} for i, line in enumerate(lines)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    spec = DataSpec.parse(f"text:{tmp_path / 'a.jsonl'},block=20")
    (batch,) = labelled(spec, words, words=280, places=None, named=named, padding=1).batches
    assert batch["labels"].tolist() == [0, 1] * 3
    for line, ids, mask in zip(lines, batch["input_ids"], batch["attention_mask"], strict=True):
        assert ids[mask == 1].tolist() == words(line)["input_ids"][:20]
        assert set(ids[mask == 0].tolist()) <= {1}
    with pytest.raises(UsageError, match="expected a padding token for texts of different lengths"):
        labelled(spec, words, words=280, places=None, named=named, padding=None)
    with pytest.raises(UsageError, match=r"as one of the 1 classes, found 1; the model's are 0 \(low\)"):
        labelled(spec, words, words=280, places=None, named={"low": 0}, padding=1)


def test_what_needs_a_model_of_transformers(tmp_path):
    (tmp_path / "a.txt").write_text(text())
    with pytest.raises(UsageError, match="expected text with the model whose tokenizer reads it"):
        read_data(f"text:{tmp_path / 'a.txt'}")
    with pytest.raises(UsageError, match=r"expected --model hf:FOLDER for text, .*, found mlp"):
        resolve(model="mlp", data=f"text:{tmp_path / 'a.txt'}")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """A language model, a classifier and text."""
    place = tmp_path_factory.mktemp("models")
    saved(place / "gpt2", "gpt2")
    saved(place / "bert", "bert")
    (place / "a.txt").write_text(text())
    return place


def test_a_folder_alone_says_how_to_go_on(folders):
    with pytest.raises(UsageError, match=r"the config\.json in it is that of hf:") as error:
        load(folders / "gpt2")
    assert error.value.options == ("--model", f"hf:{folders / 'gpt2'}", "--data", "text:FILE.txt", "--samples", "64")
    with pytest.raises(UsageError, match=r"the config\.json beside it is that of hf:"):
        load(folders / "gpt2" / "model.safetensors")
    with pytest.raises(
        UsageError, match=r"found '.*gpt2', a folder of a model with its config\.json; did you mean hf:.*gpt2\?$"
    ):
        load(folders / "gpt2", model=str(folders / "gpt2"), data=f"text:{folders / 'a.txt'}")
    with pytest.raises(UsageError, match=r"found no --data; add .* --data text:FILE\.jsonl --samples 64$"):
        load(folders / "bert", model=f"hf:{folders / 'bert'}")


def test_data_and_model_that_do_not_go_together(folders):
    with pytest.raises(UsageError, match="expected text for a causal language model, found digits; pass --data text:FILE"):
        resolve(model=f"hf:{folders / 'gpt2'}", data="digits")
    with pytest.raises(UsageError, match=r"expected a \.jsonl file for a classifier, found a\.txt"):
        resolve(model=f"hf:{folders / 'bert'}", data=f"text:{folders / 'a.txt'}")


def test_a_folder_that_lacks_something(folders, tmp_path):
    data = f"text:{folders / 'a.txt'}"
    small("gpt2").save_pretrained(tmp_path / "bare")
    with pytest.raises(UsageError, match=r"expected a tokenizer in .*, found none"):
        resolve(model=f"hf:{tmp_path / 'bare'}", data=data)
    config = json.loads((tmp_path / "bare" / "config.json").read_text())
    for change, message in (
        ({"architectures": ["T5ForConditionalGeneration"]}, "found T5ForConditionalGeneration; build it in a task.py"),
        (
            {"architectures": ["BertForMaskedLM"]},
            "found BertForMaskedLM, a masked language model: .* no loss of the next token",
        ),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "expected float weights in .*, found a quantized model"),
        ({"model_type": "new", "auto_map": {"AutoConfig": "new.New"}}, "expected a local Hugging Face model folder"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(UsageError, match=message):
            resolve(model=f"hf:{tmp_path}", data=data)


def test_an_adapter_stands_on_the_weights_of_its_base(folders, tmp_path):
    peft = pytest.importorskip("peft")
    transformers = library()
    base = transformers.GPT2LMHeadModel.from_pretrained(folders / "gpt2")
    options = {"r": 2, "lora_alpha": 3, "target_modules": ["c_attn"], "fan_in_fan_out": True, "task_type": "CAUSAL_LM"}
    adapted = peft.get_peft_model(base, peft.LoraConfig(**options)).eval()
    for name, p in adapted.named_parameters():
        if "lora_B" in name:
            p.data.normal_(generator=torch.Generator().manual_seed(0))
    adapted.save_pretrained(tmp_path)
    data = f"text:{folders / 'a.txt'},block=16"
    task = load(tmp_path, model=f"hf:{folders / 'gpt2'}", data=data)
    ids = task.train[0]["input_ids"][:4]
    expected = adapted(input_ids=ids).logits
    assert torch.equal(task.model.eval()(input_ids=ids).logits, expected)
    assert {n for n, p in task.model.named_parameters() if p.requires_grad} == {
        n for n, _ in task.model.named_parameters() if "lora_" in n
    }
    assert any("the base's weights are those of" in n and "the adapter's those of the checkpoint" in n for n in task.notices)
    assert not any("as the task made" in n or "names" in n or "tied" in n for n in task.notices)  # what nobody did
    assert load(tmp_path, model=f"hf:{folders / 'gpt2'}", data=data).base == task.base
    base = transformers.GPT2LMHeadModel.from_pretrained(folders / "gpt2")
    base.transformer.wte.weight.data.mul_(1.01)
    shutil.copytree(folders / "gpt2", tmp_path / "other")
    base.save_pretrained(tmp_path / "other")
    other = load(tmp_path, model=f"hf:{tmp_path / 'other'}", data=data)
    assert (other.sha256, other.base == task.base) == (task.sha256, False)
    adapter = json.loads((tmp_path / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == str(folders / "gpt2")
    with pytest.raises(UsageError, match=r"it is an adapter of the folder .*, which is there; add --model hf:") as error:
        load(tmp_path)
    assert error.value.options == ("--model", f"hf:{folders / 'gpt2'}", "--data", "text:FILE.txt", "--samples", "64")
    moved = adapter | {"base_model_name_or_path": "somebody/gpt2"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(moved))
    with pytest.raises(UsageError, match=r"it is an adapter of .*; add --model hf:BASE --data text:FILE\.txt"):
        load(tmp_path)
    with pytest.raises(UsageError, match="this model has no LoRA adapters"):
        load(folders / "gpt2", model=f"hf:{folders / 'gpt2'}", data=data).objective(params="lora")
    with pytest.raises(UsageError, match="expected the folder of a whole model, found an adapter"):
        resolve(model=f"hf:{tmp_path}", data=data)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"use_dora": True}))
    with pytest.raises(MismatchError, match="found one with use_dora, whose norm of the weight PEFT leaves out"):
        load(tmp_path, model=f"hf:{folders / 'gpt2'}", data=data)


def test_a_distributed_checkpoint_is_loaded_into_the_model_of_a_folder(folders, tmp_path):
    trained = library().GPT2LMHeadModel.from_pretrained(folders / "gpt2")
    trained.transformer.h[0].mlp.c_fc.weight.data.mul_(1.5)
    dcp.save({"model": trained.state_dict()}, checkpoint_id=tmp_path / "dcp", no_dist=True)
    data = f"text:{folders / 'a.txt'},block=16"
    task = load(tmp_path / "dcp", model=f"hf:{folders / 'gpt2'}", data=data)
    ids = task.train[0]["input_ids"][:2]
    assert torch.equal(task.model.eval()(input_ids=ids).logits, trained.eval()(input_ids=ids).logits)
    assert task.sha256 == checkpoints.read(tmp_path / "dcp").sha256


def test_experts_are_told(tmp_path):
    saved(tmp_path / "moe", "mixtral")
    (tmp_path / "a.txt").write_text(text())
    task = resolve(model=f"hf:{tmp_path / 'moe'}", data=f"text:{tmp_path / 'a.txt'},block=16")
    assert any(notice.startswith("a mixture of 4 experts: derivatives are taken with every token") for notice in task.notices)


@pytest.mark.parametrize("kind", ["BertLMHeadModel", "RobertaForCausalLM"])
def test_a_model_that_sees_the_next_token_is_no_language_model(tmp_path, kind):
    transformers, words = library(), tokenizer()
    config = getattr(transformers, kind).config_class(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=12,
        max_position_embeddings=40,
    )  # fmt: skip
    getattr(transformers, kind)(config).save_pretrained(tmp_path / "model")
    words.save_pretrained(tmp_path / "model")
    (tmp_path / "a.txt").write_text(text())
    names = {"model": f"hf:{tmp_path / 'model'}", "data": f"text:{tmp_path / 'a.txt'},block=16"}
    with pytest.raises(UsageError, match=r"found one in .* whose predictions depend on later tokens; pass -M is_decoder=True"):
        resolve(**names)
    resolve(**names, model_kwargs={"is_decoder": True})


@pytest.mark.parametrize("name", [name for name in MODELS if name != "bert"])
def test_causal_models_are_taken_for_such(tmp_path, name):
    saved(tmp_path / "model", name)
    (tmp_path / "a.txt").write_text(text())
    resolve(model=f"hf:{tmp_path / 'model'}", data=f"text:{tmp_path / 'a.txt'},block=16")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"problem_type": "multi_label_classification"}, "found problem_type multi_label_classification in"),
        ({"problem_type": "regression"}, "found problem_type regression in"),
        ({"num_labels": 1}, "found one output, which is a regression, in"),
        ({"problem_type": "single_label_classification"}, None),
    ],
)
def test_a_classifier_with_another_loss_is_refused(tmp_path, options, message):
    saved(tmp_path / "model", "bert", **options)
    rows = [{"text": line, "label": 0} for line in text(3).splitlines()]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    names = {"model": f"hf:{tmp_path / 'model'}", "data": f"text:{tmp_path / 'a.jsonl'}"}
    if message is None:
        assert isinstance(resolve(**names).loss, torch.nn.CrossEntropyLoss)
        return
    with pytest.raises(UsageError, match=rf"one label for each text, {message} .*; write a task\.py with its loss"):
        resolve(**names)
