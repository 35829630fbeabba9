"""Small models for the tasks of the list, each with a batch and a loss: what a loop has beside its features."""

import itertools

import torch
import transformers
from torch import nn
from torch.nn import functional

BATCH, LENGTH, VOCABULARY, WIDTH, LAYERS, CLASSES = 4, 128, 4096, 128, 4, 4
_ENCODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 4 * WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_labels": CLASSES,
}
_T5 = {
    "vocab_size": VOCABULARY,
    "d_model": WIDTH,
    "d_ff": 4 * WIDTH,
    "d_kv": 32,
    "num_heads": 4,
    "num_layers": LAYERS,
    "decoder_start_token_id": 0,
}


class FromConfig(nn.Module):
    """A model of transformers, of which only the loss of a batch is wanted."""

    def __init__(self, made, batch):
        super().__init__()
        self.inner = made
        self._batch = batch

    def batch(self, device):
        """Return a batch of random inputs."""
        return self._batch(device)

    def forward(self, batch):
        """Return the loss of a batch, and what else the model returns for it."""
        outputs = self.inner(**batch)
        return outputs.loss, outputs.logits


def _tokens(device, *size):
    return torch.randint(VOCABULARY, size, device=device)


def _classes(device, *size):
    return torch.randint(CLASSES, size, device=device)


def _texts(device, labels):
    return {"input_ids": _tokens(device, BATCH, LENGTH), "labels": labels}


def causal(**_):
    """Return a decoder that learns the next token."""
    config = transformers.LlamaConfig(**_ENCODER, num_key_value_heads=2, use_cache=False)
    made = transformers.LlamaForCausalLM(config)
    return FromConfig(made, lambda device: _texts(device, _tokens(device, BATCH, LENGTH)))


def mlm(**_):
    """Return an encoder that learns hidden tokens."""
    made = transformers.BertForMaskedLM(transformers.BertConfig(**_ENCODER))
    return FromConfig(made, lambda device: _texts(device, _tokens(device, BATCH, LENGTH)))


def seq_cls(architecture="bert", multilabel=False, **_):
    """Return a classifier of texts; with `multilabel`, one decision for each class."""
    kind = "multi_label_classification" if multilabel else "single_label_classification"
    known = transformers.AutoConfig.for_model(architecture, **_ENCODER, problem_type=kind)
    made = transformers.AutoModelForSequenceClassification.from_config(known)

    def batch(device):
        labels = (
            torch.rand(BATCH, CLASSES, device=device) if multilabel else _classes(device, BATCH)
        )
        return _texts(device, labels)

    return FromConfig(made, batch)


def token_cls(**_):
    """Return a classifier of tokens."""
    made = transformers.BertForTokenClassification(transformers.BertConfig(**_ENCODER))
    return FromConfig(made, lambda device: _texts(device, _classes(device, BATCH, LENGTH)))


def multiple_choice(**_):
    """Return an encoder that learns which of several texts is right."""
    made = transformers.BertForMultipleChoice(transformers.BertConfig(**_ENCODER))

    def batch(device):
        return {
            "input_ids": _tokens(device, BATCH, CLASSES, LENGTH),
            "labels": _classes(device, BATCH),
        }

    return FromConfig(made, batch)


class _Span(FromConfig):
    """A model with two positions as answers."""

    def forward(self, batch):
        """Return the loss of a batch, and the scores of beginnings."""
        outputs = self.inner(**batch)
        return outputs.loss, outputs.start_logits


def qa(**_):
    """Return an encoder that learns where an answer begins and ends."""
    made = transformers.BertForQuestionAnswering(
        transformers.BertConfig(**_ENCODER | {"num_labels": 2})
    )

    def batch(device):
        ends = {name: _classes(device, BATCH) for name in ("start_positions", "end_positions")}
        return {"input_ids": _tokens(device, BATCH, LENGTH), **ends}

    return _Span(made, batch)


class _Pairs(FromConfig):
    """An encoder of which texts of a pair are to be nearer than all others of the batch."""

    def forward(self, batch):
        """Return the contrastive loss of a batch (InfoNCE), and the similarities."""
        first, second = (
            functional.normalize(self.inner(ids).last_hidden_state.mean(1), dim=-1) for ids in batch
        )
        scores = first @ second.T / 0.05
        return functional.cross_entropy(scores, torch.arange(BATCH, device=scores.device)), scores


def contrastive(**_):
    """Return an encoder of sentences."""
    made = transformers.BertModel(transformers.BertConfig(**_ENCODER), add_pooling_layer=False)
    return _Pairs(made, lambda device: [_tokens(device, BATCH, LENGTH) for _ in range(2)])


def seq2seq(**_):
    """Return an encoder and a decoder of texts."""
    made = transformers.T5ForConditionalGeneration(transformers.T5Config(**_T5))
    return FromConfig(made, lambda device: _texts(device, _tokens(device, BATCH, LENGTH // 2)))


def speech(**_):
    """Return a recogniser of speech that reads spectrograms and writes text (Whisper)."""
    shape = {
        "vocab_size": VOCABULARY,
        "d_model": WIDTH,
        "encoder_layers": LAYERS,
        "decoder_layers": LAYERS,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 4 * WIDTH,
        "decoder_ffn_dim": 4 * WIDTH,
        "max_source_positions": LENGTH,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 1,
    }
    made = transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**shape))

    def batch(device):
        return {
            "input_features": torch.rand(
                BATCH, made.config.num_mel_bins, 2 * LENGTH, device=device
            ),
            "labels": _tokens(device, BATCH, LENGTH // 4),
        }

    return FromConfig(made, batch)


def vision(**_):
    """Return a convolutional classifier of images."""
    channels = (3, 32, 64, 128)
    layers = [
        layer
        for before, after in itertools.pairwise(channels)
        for layer in (
            nn.Conv2d(before, after, 3, stride=2, padding=1),
            nn.BatchNorm2d(after),
            nn.ReLU(),
        )
    ]
    return _Images(
        nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, CLASSES)),
        lambda device: (torch.rand(BATCH, 3, 64, 64, device=device), _classes(device, BATCH)),
    )


class _Images(FromConfig):
    """Layers that end in the scores of classes."""

    def forward(self, batch):
        """Return the loss of a batch of images with classes, and the scores."""
        images, classes = batch
        scores = self.inner(images)
        return functional.cross_entropy(scores, classes), scores


class _Policy(nn.Module):
    """A policy and a value head beside a frozen reference, with the loss of PPO."""

    def __init__(self):
        super().__init__()
        self.inner = causal().inner
        self.value = nn.Linear(WIDTH, 1)
        self.reference = causal().inner.requires_grad_(False)

    def batch(self, device):
        """Return texts, and the old log probabilities and advantages of their tokens."""
        return _tokens(device, BATCH, LENGTH), *torch.rand(2, BATCH, LENGTH, device=device)

    def forward(self, batch):
        """Return the loss of a batch, and the scores of tokens."""
        tokens, old, advantages = batch
        outputs = self.inner(tokens, output_hidden_states=True)
        values = self.value(outputs.hidden_states[-1]).squeeze(-1)
        with torch.no_grad():
            reference = _log_probability(self.reference(tokens).logits, tokens)
        now = _log_probability(outputs.logits, tokens)
        ratio = torch.exp(now - old)
        clipped = torch.clamp(ratio, 0.8, 1.2)
        gain = torch.minimum(ratio * advantages, clipped * advantages)
        loss = (now - reference - gain + (values - advantages) ** 2).mean()
        return loss, outputs.logits


def _log_probability(logits, tokens):
    return torch.log_softmax(logits, -1).gather(-1, tokens[..., None]).squeeze(-1)


def rl(**_):
    """Return a policy that is trained by reinforcement."""
    return _Policy()


TASKS = {
    "causal": causal,
    "mlm": mlm,
    "seq-cls": seq_cls,
    "token-cls": token_cls,
    "multiple-choice": multiple_choice,
    "qa": qa,
    "contrastive": contrastive,
    "seq2seq": seq2seq,
    "speech": speech,
    "vision": vision,
    "rl": rl,
}
