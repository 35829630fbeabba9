"""Changes: regressions with what must be named, and harmless ones that must not alarm."""

import dataclasses
import re

from tests.mutations.subjects import Edit


@dataclasses.dataclass(frozen=True)
class Planted:
    """A regression: its edits, and patterns of the module and the operator (or role) that it is due to."""

    name: str
    edits: tuple[Edit, ...]
    module: str
    operator: str
    setup: tuple[Edit, ...] = ()  # of the version before it, too
    loop: str = "training"  # or "make_step" or "replicated", on several GPUs

    def names(self, changed):
        """Return whether a changed part is the right one."""
        what = f"{changed.role} {changed.operator}"
        return bool(re.search(self.module, changed.module) and re.search(self.operator, what))


@dataclasses.dataclass(frozen=True)
class Harmless:
    """A change that needs no other memory."""

    name: str
    edits: tuple[Edit, ...]


def training(old, new, *, everywhere=False):
    return Edit("training", old, new, everywhere)


def model(old, new, *, everywhere=False):
    return Edit("model", old, new, everywhere)


EAGER = training('ATTENTION = "sdpa"', 'ATTENTION = "eager"')
PLAIN = training("CHECKPOINTING = True", "CHECKPOINTING = False")
AT_ONCE = training("MICRO_BATCHES = 2", "MICRO_BATCHES = 1")
SHORT = training("LONGEST = 48", "LONGEST = 8")  # so that the optimizer's step is the peak
MODEL = r"^(encoder|pooled|head)"
LAYER = r"layer\.\*"
FFN = r"layer\.\*\.ffn"
ATTENTION = r"layer\.\*\.attention"
OUTSIDE = r"outside the model"

PLANTED = (
    Planted(
        "an activation is upcast before it is used",
        (model("x = self.activation(x)", "x = self.activation(x.float())"),),
        FFN,
        r"_to_copy|gelu",
        setup=(PLAIN,),
    ),
    Planted(
        "the softmax of attention is taken in float64",
        (
            model(
                "nn.functional.softmax(attn_weights, dim=-1)",
                "nn.functional.softmax(attn_weights.double(), dim=-1).to(query.dtype)",
            ),
        ),
        ATTENTION,
        r"softmax|_to_copy",
        setup=(EAGER, PLAIN),
    ),
    Planted(
        "outputs are kept in a list",
        (
            model(
                "self.gradient_checkpointing = False",
                "self.gradient_checkpointing = False\n        self.kept = []",
            ),
            model(
                "return BaseModelOutput(last_hidden_state=hidden_states)",
                "self.kept.append(hidden_states.detach())\n"
                "        return BaseModelOutput(last_hidden_state=hidden_states)",
            ),
        ),
        LAYER,
        r"layer_norm",
    ),
    Planted(
        "an operation in place is lost",
        (
            training(
                "torch._foreach_div_([p.grad for p in model.parameters()], MICRO_BATCHES)",
                "grads = torch._foreach_div([p.grad for p in model.parameters()], MICRO_BATCHES)\n"
                "        for p, grad in zip(model.parameters(), grads, strict=True):\n"
                "            p.grad.copy_(grad)",
            ),
        ),
        OUTSIDE,
        r"_foreach_div",
        setup=(SHORT,),
    ),
    Planted(
        "a dropout keeps its mask as float32",
        (
            model(
                "        x = self.dropout(x)\n        return x",
                "        mask = (torch.rand_like(x, dtype=torch.float32) > 0.1).float()\n"
                "        return x * mask",
            ),
        ),
        FFN,
        r"rand|mul|gt|_to_copy",
        setup=(PLAIN,),
    ),
    Planted(
        "checkpointing is dropped",
        (PLAIN,),
        LAYER,
        r"activations",
    ),
    Planted(
        "attention is written out",
        (EAGER,),
        ATTENTION,
        r"softmax|dropout|bmm|mul",
        setup=(PLAIN,),
    ),
    Planted(
        "gradients are not released",
        (training("set_to_none=True", "set_to_none=False"),),
        MODEL,
        r"gradients",
        setup=(PLAIN, AT_ONCE),
    ),
    Planted(
        "the optimizer is foreach, not fused",
        (training("fused=True", "foreach=True"),),
        OUTSIDE,
        r"_foreach",
        setup=(SHORT,),
    ),
    Planted(
        "a buffer is doubled",
        (
            model(
                "torch.arange(config.max_position_embeddings).expand((1, -1)), persistent",
                "torch.arange(2 * config.max_position_embeddings).expand((1, -1)), persistent",
            ),
        ),
        r"embeddings",
        r"parameters",
    ),
    Planted(
        "batches are padded to 512",
        (training("length = LONGEST", "length = 512"),),
        ATTENTION,  # of a batch of 4 the mask of 512 x 512 has 2 MiB, and grows with the square
        r"where|expand|_to_copy",
    ),
    Planted(
        "logits are kept in float32, with their graph",
        (
            training(
                "return nn.functional.cross_entropy(logits, labels)",
                "losses.append(logits.float())\n        return nn.functional.cross_entropy(logits, labels)",
            ),
        ),
        r"head|outside the model",
        r"_to_copy|addmm",
    ),
    Planted(
        "a buffer of 512 bytes",
        (
            training(
                "self.dropout = nn.Dropout(0.1)",
                'self.dropout = nn.Dropout(0.1)\n        self.register_buffer("scale", torch.ones(128))',
            ),
        ),
        r"pooled",
        r"parameters",
    ),
    Planted(
        "a copy of the weights is kept",
        (
            training(
                "    losses = []",
                "    losses = []\n    shadow = [p.detach().clone() for p in model.parameters()]",
            ),
            training(
                "losses.append(evaluated.item())", "losses.append((evaluated.item(), len(shadow)))"
            ),
        ),
        OUTSIDE,
        r"clone",
    ),
    Planted(
        "amsgrad's third moment",
        (training("fused=True,", "fused=True,\n        amsgrad=True,"),),
        MODEL,
        r"optimizer state",
    ),
    Planted(
        "the loss keeps its graph until the next step",
        (
            training(
                "        losses.append(evaluated.item())",
                "        losses.append(evaluated.item())\n        return loss_of(*batch)",
            ),
        ),
        LAYER,
        r"activations|temporaries",
        setup=(PLAIN,),
    ),
    Planted(
        "a copy of the context",
        (
            model(
                "attn_output = attn_output.reshape(*input_shape, -1).contiguous()",
                "attn_output = attn_output.reshape(*input_shape, -1).clone()",
            ),
        ),
        ATTENTION,
        r"clone",
        setup=(PLAIN,),
    ),
    Planted(
        "the residual is summed in float64",
        (
            model(
                "self.output_layer_norm(ffn_output + attention_output)",
                "self.output_layer_norm(ffn_output.double() + attention_output.double()).float()",
            ),
        ),
        LAYER,
        r"_to_copy|add|layer_norm",
        setup=(PLAIN,),
    ),
    Planted(
        "evaluation builds a graph",
        (training("with torch.no_grad():", "with torch.enable_grad():"),),
        LAYER,
        r"activations|temporaries",
        setup=(training("MICRO_BATCHES = 2", "MICRO_BATCHES = 8"),),
    ),
    Planted(
        "batches are no longer accumulated",
        (AT_ONCE,),
        LAYER,
        r"activations",
        setup=(PLAIN,),
    ),
    Planted(
        "mixed precision is dropped",
        (
            training(
                "with torch.autocast(device.type, dtype=torch.bfloat16):",
                "with torch.autocast(device.type, dtype=torch.bfloat16, enabled=False):",
            ),
        ),
        LAYER,
        r"activations",
        setup=(PLAIN,),
    ),
    Planted(
        "gelu is written out",
        (
            model(
                "x = self.activation(x)",
                "x = 0.5 * x * (1.0 + torch.erf(x / 2**0.5))",
            ),
        ),
        FFN,
        r"mul|erf|div|add",
        setup=(PLAIN,),
    ),
    Planted(
        "a norm is written out",
        (
            model(
                "ffn_output = self.output_layer_norm(ffn_output + attention_output)",
                "ffn_output = ffn_output + attention_output\n"
                "        centred = ffn_output - ffn_output.mean(-1, keepdim=True)\n"
                "        norm = self.output_layer_norm\n"
                "        spread = centred.pow(2).mean(-1, keepdim=True).add(norm.eps).sqrt()\n"
                "        ffn_output = centred / spread * norm.weight + norm.bias",
            ),
        ),
        r"layer\.\*$",
        r"div|sub|mul|pow",
        setup=(PLAIN,),
    ),
    Planted(
        "a wider head",
        (training("LABELS = 2", "LABELS = 512"),),
        r"head",
        r"parameters|gradients|optimizer state",
    ),
    Planted(
        "a second model is kept for reference",
        (
            training(
                "    losses = []",
                "    losses = []\n    import copy; reference = copy.deepcopy(model)",
            ),
            training(
                "losses.append(evaluated.item())",
                "losses.append((evaluated.item(), reference.training))",
            ),
        ),
        OUTSIDE,
        r"clone",
    ),
    Planted(
        "gradients are copied before they are clipped",
        (
            training(
                "nn.utils.clip_grad_norm_(model.parameters(), 1.0)",
                "before = [p.grad.clone() for p in model.parameters()]\n"
                "        nn.utils.clip_grad_norm_(model.parameters(), 1.0)",
            ),
        ),
        OUTSIDE,
        r"clone",
        setup=(SHORT,),
    ),
)

HARMLESS = (
    Harmless("nothing", ()),
    Harmless("another seed", (training("SEED = 42", "SEED = 7"),)),
    Harmless("another learning rate", (training("LEARNING_RATE = 5e-5", "LEARNING_RATE = 1e-3"),)),
    Harmless("other betas", (training("(0.9, 0.999)", "(0.8, 0.99)"),)),
    Harmless("another decay", (training("weight_decay=0.01", "weight_decay=0.1"),)),
    Harmless("another warm-up", (training("optimizer, 2, 100", "optimizer, 10, 1000"),)),
    Harmless("another share of dropout", (training("nn.Dropout(0.1)", "nn.Dropout(0.2)"),)),
    Harmless(
        "another limit of the gradient",
        (training("model.parameters(), 1.0", "model.parameters(), 0.5"),),
    ),
    Harmless(
        "a comment",
        (training("    losses = []", "    # of every step\n    losses = []  # so far"),),
    ),
    Harmless(
        "a docstring",
        (model("class FFN(nn.Module):\n", 'class FFN(nn.Module):\n    """Feed forward."""\n\n'),),
    ),
    Harmless(
        "an empty line above everything", (model("class Embeddings", "\n\n\nclass Embeddings"),)
    ),
    Harmless("a variable's name", (model("ffn_output", "output", everywhere=True),)),
    Harmless("a function's name", (training("loss_of", "compute_loss", everywhere=True),)),
    Harmless("a class's name", (model("FFN", "FeedForward", everywhere=True),)),
    Harmless(
        "a module's name", (model("self.sa_layer_norm", "self.norm_of_attention", everywhere=True),)
    ),
    Harmless("a stack's name", (training("self.pooled", "self.summary", everywhere=True),)),
    Harmless(
        "modules in another order",
        (
            training(
                "        self.norm = nn.LayerNorm(dim)\n        self.project = nn.Linear(dim, dim)\n",
                "        self.project = nn.Linear(dim, dim)\n        self.norm = nn.LayerNorm(dim)\n",
            ),
        ),
    ),
    Harmless(
        "projections in another order",
        (
            model(
                "        self.q_lin = nn.Linear(in_features=config.dim, out_features=config.dim)\n"
                "        self.k_lin = nn.Linear(in_features=config.dim, out_features=config.dim)\n",
                "        self.k_lin = nn.Linear(in_features=config.dim, out_features=config.dim)\n"
                "        self.q_lin = nn.Linear(in_features=config.dim, out_features=config.dim)\n",
            ),
        ),
    ),
    Harmless(
        "a helper is taken out",
        (
            training(
                "        pooled = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)\n",
                "        pooled = self.mean(hidden, weights)\n",
            ),
            training(
                "    def forward(self, hidden, mask):",
                "    def mean(self, hidden, weights):\n"
                "        return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)\n\n"
                "    def forward(self, hidden, mask):",
            ),
        ),
    ),
    Harmless(
        "a helper of the model is taken out",
        (
            model(
                "        x = self.lin1(input)\n        x = self.activation(x)\n",
                "        x = self.inner(input)\n",
            ),
            model(
                "    def ff_chunk(self",
                "    def inner(self, input):\n"
                "        return self.activation(self.lin1(input))\n\n"
                "    def ff_chunk(self",
            ),
        ),
    ),
    Harmless(
        "an unused function",
        (
            training(
                "def collate(device):", "def unused():\n    return 1\n\n\ndef collate(device):"
            ),
        ),
    ),
    Harmless("an import", (training("import torch\n", "import json\n\nimport torch\n"),)),
    Harmless(
        "a message",
        (
            training(
                "        scheduler.step()",
                '        scheduler.step()\n        f"{len(losses)} steps"',
            ),
        ),
    ),
    Harmless(
        "a number is counted on the host",
        (
            training(
                "        losses.append(evaluated.item())",
                "        losses.append(float(sum([evaluated.item(), 0.0])))",
            ),
        ),
    ),
)
