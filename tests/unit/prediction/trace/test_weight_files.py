"""Weight files in a trace: what is read has no data, and takes the memory that reading takes on a card."""

import os
import shutil

import pytest
import safetensors
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, LlamaConfig

from ftbench.base.errors import PredictionError
from ftbench.prediction.trace.events import Kind
from ftbench.prediction.trace.tracer import Target, trace

TARGET = Target(padding=False)
CONFIG = LlamaConfig(
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=128,
    pad_token_id=0,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("weights")
    model = AutoModelForCausalLM.from_config(CONFIG)
    model.save_pretrained(made)
    model.save_pretrained(made / "parts", max_shard_size="100KB")
    torch.save(model.state_dict(), made / "weights.pt")
    return made


def training(model):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    model.train()

    def step():
        ids = torch.zeros(2, 16, dtype=torch.long, device=model.device)
        classes = torch.zeros(2, dtype=torch.long, device=model.device)
        labels = classes if "Classification" in type(model).__name__ else ids
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def random_weights(device):
    return training(AutoModelForCausalLM.from_config(CONFIG).to(device))


def in_parts(folder, device):
    assert len(list((folder / "parts").glob("*.safetensors"))) > 1
    return AutoModelForCausalLM.from_pretrained(folder / "parts", device_map=device)


def pickled(folder, device):
    (folder / "pickled").mkdir(exist_ok=True)
    CONFIG.save_pretrained(folder / "pickled")
    shutil.copy(folder / "weights.pt", folder / "pickled" / "pytorch_model.bin")
    return AutoModelForCausalLM.from_pretrained(folder / "pickled", device_map=device)


LOADED = {
    "moved": lambda folder, device: AutoModelForCausalLM.from_pretrained(folder).to(device),
    "mapped": lambda folder, device: AutoModelForCausalLM.from_pretrained(
        folder, device_map=device
    ),
    "mapped by name": lambda folder, _: AutoModelForCausalLM.from_pretrained(
        folder, device_map="cuda"
    ),
    "mapped by number": lambda folder, _: AutoModelForCausalLM.from_pretrained(
        folder, device_map={"": 0}
    ),
    "in parts": in_parts,
    "pickled": pickled,
    "mapped by itself": lambda folder, _: AutoModelForCausalLM.from_pretrained(
        folder, device_map="auto"
    ),
}


@pytest.mark.parametrize("way", LOADED)
def test_a_loaded_model_trains_in_the_memory_of_one_with_random_weights(way, folder):
    loaded = trace(lambda device: training(LOADED[way](folder, device)), target=TARGET)
    assert loaded.peak_bytes == trace(random_weights, target=TARGET).peak_bytes


@pytest.mark.parametrize("place", ["cpu", "cuda"])
def test_state_is_loaded_from_both_kinds_of_files(place, folder):
    def factory(device, read):
        model = AutoModelForCausalLM.from_config(CONFIG)
        model.load_state_dict(read(), strict=False)
        return training(model.to(device))

    readers = (
        lambda: load_file(folder / "model.safetensors", device=place),
        lambda: torch.load(folder / "weights.pt", map_location=place),
    )
    whole = trace(random_weights, target=TARGET).peak_bytes
    for read in readers:
        assert (
            trace(lambda device, read=read: factory(device, read), target=TARGET).peak_bytes
            == whole
        )


@pytest.mark.parametrize(
    "place",
    ["cuda", "cuda:0", torch.device("cuda", 0), {"cpu": "cuda:0"}, None, "cpu", lambda s, _: s],
    ids=["name", "numbered", "device", "table", "none", "host", "function"],
)
@pytest.mark.parametrize("mmap", [False, True])
def test_a_loaded_state_takes_memory_where_it_is_while_it_lives(place, mmap, folder):
    weights = 4 * AutoModelForCausalLM.from_config(CONFIG).num_parameters()
    on_host = place is None or place == "cpu" or callable(place)
    found = []

    def factory(device):
        state = torch.load(folder / "weights.pt", map_location=place, mmap=mmap)
        found.append(torch.cuda.memory_allocated())
        assert {t.device.type for t in state.values()} == {"cpu" if on_host else "cuda"}
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(CONFIG)
        model.load_state_dict(state, assign=True, strict=False)
        del state
        found.append(torch.cuda.memory_allocated())
        model.to(device)  # its buffers, and all of it from the host
        found.append(torch.cuda.memory_allocated())
        return lambda: model.lm_head.weight.sum()

    trace(factory, target=TARGET)
    assert found[:2] == [0, 0] if on_host else [weights, weights]
    assert weights <= found[2] < weights + 512


def test_a_module_that_was_saved_whole_is_loaded_to_the_card(tmp_path):
    torch.save(torch.nn.Linear(64, 32), tmp_path / "module.pt")
    found = []

    def factory(device):
        module = torch.load(tmp_path / "module.pt", weights_only=False, map_location=device)
        found.append(torch.cuda.memory_allocated())
        return lambda: module(torch.ones(2, 64, device=device)).sum().backward()

    trace(factory, target=TARGET)
    assert found == [4 * (64 * 32 + 32)]


def test_a_function_that_moves_what_it_is_given_is_refused(folder):
    with pytest.raises(PredictionError, match="moves"):
        trace(
            lambda device: torch.load(folder / "weights.pt", map_location=lambda s, _: s.clone()),
            target=TARGET,
        )


def test_a_type_given_in_loading_halves_the_weights(folder):
    sizes = {}
    for dtype in (torch.float32, torch.bfloat16):

        def factory(device, dtype=dtype):
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, device_map=device)
            sizes[dtype] = torch.cuda.memory_allocated()
            return training(model)

        trace(factory, target=TARGET)
    # The frequencies of rotary embeddings stay in float32, in two buffers.
    frequencies = 2 * 4 * CONFIG.hidden_size // CONFIG.num_attention_heads // 2
    wide, half = (size - frequencies for size in sizes.values())
    assert wide == 2 * half
    assert wide == 4 * AutoModelForCausalLM.from_config(CONFIG).num_parameters()


def test_weights_that_are_missing_are_made(folder):
    def factory(device):
        model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=7)
        assert model.score.weight.shape == (7, 64)
        return training(model.to(device))

    def random(device):
        config = LlamaConfig(**CONFIG.to_dict() | {"num_labels": 7})
        return training(AutoModelForSequenceClassification.from_config(config).to(device))

    assert trace(factory, target=TARGET).peak_bytes == trace(random, target=TARGET).peak_bytes


def test_the_block_that_transformers_allocates_before_is_in_the_events(folder):
    traced = trace(
        lambda device: training(LOADED["mapped"](folder, device)), target=TARGET, steps=1
    )
    kinds = traced.kind[:2].tolist(), traced.nbytes[0], traced.block[:2].tolist()
    weights = 4 * AutoModelForCausalLM.from_config(CONFIG).num_parameters()
    assert kinds == ([Kind.ALLOCATE, Kind.FREE], weights, [traced.block[0]] * 2)


def test_adapters_are_loaded_beside_the_model(folder, tmp_path):
    model = AutoModelForCausalLM.from_config(CONFIG)
    get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=4)).save_pretrained(tmp_path)
    found = []

    def factory(device):
        model = AutoModelForCausalLM.from_pretrained(folder, device_map=device)
        before = torch.cuda.memory_allocated()
        model = PeftModel.from_pretrained(model, tmp_path, is_trainable=True)
        found.append(torch.cuda.memory_allocated() - before)
        return training(model)

    trace(factory, target=TARGET)
    # Query and value of two layers: from 64 to 4 to 64, or to 32.
    assert found == [4 * 2 * (4 * (64 + 64) + 4 * (64 + 32))]


def test_a_part_of_a_tensor_takes_the_memory_of_the_part(tmp_path):
    save_file({"rows": torch.zeros(100, 8, dtype=torch.bfloat16)}, tmp_path / "rows.safetensors")
    taken = {}

    def factory(device):
        with safetensors.safe_open(tmp_path / "rows.safetensors", "pt", device="cuda") as file:
            rows = file.get_slice("rows")
            assert (rows.get_shape(), rows.get_dtype(), file.keys()) == ([100, 8], "BF16", ["rows"])
            taken["part"] = rows[10:30]
            taken["bytes"] = torch.cuda.memory_allocated()
            taken["whole"] = file.get_tensor("rows")
            taken["all"] = torch.cuda.memory_allocated()
            assert taken["part"].shape == (20, 8)
        kept = taken.pop("part"), taken.pop("whole")
        return lambda: kept[0].sum()

    trace(factory, target=TARGET)
    assert (taken["bytes"], taken["all"]) == (20 * 8 * 2, 120 * 8 * 2)


def test_files_are_read_as_ever_after_a_trace(folder):
    kept = {}

    def factory(device):
        from safetensors import safe_open

        kept["opened"] = safe_open
        return random_weights(device)

    before = dict(os.environ)
    trace(factory, target=TARGET)
    assert dict(os.environ) == before
    for opened in (safetensors.safe_open, kept["opened"]):
        with opened(folder / "model.safetensors", framework="pt") as file:
            assert file.get_tensor("lm_head.weight").std() > 0


def test_arrays_that_are_read_in_a_trace_have_data(folder):
    def factory(device):
        with safetensors.safe_open(folder / "model.safetensors", framework="np") as file:
            assert file.get_tensor("lm_head.weight").std() > 0
        return lambda: None

    trace(factory, target=TARGET)


def test_a_question_for_free_memory_is_refused_elsewhere():
    def factory(device):
        torch.cuda.mem_get_info()

    with pytest.raises(PredictionError, match="mem_get_info"):
        trace(factory, target=TARGET)
