"""Regressions of training on several GPUs, planted in the loops of `examples/sharded_gpt.py`."""

from tests.mutations.changes import OUTSIDE, Planted
from tests.mutations.subjects import Edit

SHARDED, REPLICATED = "make_step", "replicated"
LAYERS = r"body\.layers\.\*"
ROOT = r"^$|outside the model"
ANY = r""
EACH_LAYER = "fully_shard(layer, mesh=mesh, mp_policy=BFLOAT16)"
REDUCED_AT_THE_END = "model.set_requires_gradient_sync(micro_batch == micro_batches - 1)"
REDUCED_EACH_TIME = "model.set_requires_gradient_sync(True)"
IN_BFLOAT16 = "reduce_dtype=torch.bfloat16"
IN_FLOAT32 = "reduce_dtype=torch.float32"
REPLICA = "model = DistributedDataParallel(model, gradient_as_bucket_view=True)"


def sharded(old, new):
    return Edit("sharded", old, new)


# So that the optimizer's step is the peak.
FEW_TOKENS = Edit("sharded", "(batch, length + 1)", "(1, 8)", everywhere=True)

SHARDED_PLANTED = (
    Planted(
        "layers are no longer sharded by themselves",
        (sharded(EACH_LAYER, "pass"),),
        ROOT,
        r"unsharded parameters|all-gather|reduce-scatter",
        loop=SHARDED,
    ),
    Planted(
        "layers stay unsharded after their forward pass",
        (sharded(EACH_LAYER, EACH_LAYER.replace(")", ", reshard_after_forward=False)")),),
        LAYERS,
        r"unsharded parameters",
        loop=SHARDED,
    ),
    Planted(
        "gradients are reduced in float32",
        (sharded(IN_BFLOAT16, IN_FLOAT32),),
        ANY,
        r"reduce-scatter|gradients",
        setup=(sharded(IN_FLOAT32, IN_BFLOAT16),),
        loop=SHARDED,
    ),
    Planted(
        "mixed precision is lost",
        (sharded("param_dtype=torch.bfloat16", "param_dtype=torch.float32"),),
        LAYERS,
        r"unsharded parameters|activations",
        loop=SHARDED,
    ),
    Planted(
        "scores are upcast before the loss",
        (sharded("scores.flatten(0, 1)", "scores.flatten(0, 1).float()"),),
        r"head|outside the model",
        r"_to_copy|log_softmax",
        loop=SHARDED,
    ),
    Planted(
        "gradients are kept unsharded between micro-batches",
        (sharded(REDUCED_EACH_TIME, REDUCED_AT_THE_END),),
        ANY,
        r"gradients|mm|reduce-scatter|_to_copy|embedding",
        setup=(sharded(REDUCED_AT_THE_END, REDUCED_EACH_TIME),),
        loop=SHARDED,
    ),
    Planted(
        "losses are kept with their graphs",
        (
            sharded(
                "loss = loss_of(model, tokens)\n            loss.backward()\n        torch",
                "loss = loss_of(model, tokens)\n            loss.backward(retain_graph=True)\n        torch",
            ),
        ),
        ANY,
        r"activations|temporaries|unsharded",
        loop=SHARDED,
    ),
    Planted(
        "buckets are copies of the gradients",
        (sharded("gradient_as_bucket_view=True", "gradient_as_bucket_view=False"),),
        ANY,
        r"gradient|buckets",
        setup=(FEW_TOKENS,),
        loop=REPLICATED,
    ),
    Planted(
        "a copy of the model is kept on each rank",
        (
            sharded(REPLICA, f"import copy; reference = copy.deepcopy(model); {REPLICA}"),
            sharded(
                "            with torch.autocast",
                "            reference.train()\n            with torch.autocast",
            ),
        ),
        OUTSIDE,
        r"clone|set_",
        loop=REPLICATED,
    ),
)
