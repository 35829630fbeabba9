"""Published times of whole fine-tunes on GPUs, and the work of their steps. Facts, each with its source.

The runs are from 2020 to 2023: eager attention, and optimizers that loop over parameters. Works are what
`ftbench.prediction.trace.work.count_work` gives for these shapes; tests/integration/test_estimate.py counts two again.
"""

import dataclasses

from ftbench.estimation.card_speed import CardSpeed
from ftbench.estimation.roofline import Rates
from ftbench.plan.schedule import Schedule
from ftbench.records.prediction import CellWork, PassWork
from tests.published_kernels import kernels_of
from tests.time_validation.cards import cards


@dataclasses.dataclass(frozen=True)
class FineTune:
    """One published run: its work, how often, the card's rates, and the seconds that it took."""

    name: str
    work: CellWork
    job: Schedule
    rates: Rates
    seconds: float
    source: str
    card: CardSpeed


def _with_kernels(name: str, work: CellWork) -> CellWork:
    """Return a work with the shapes of its kernels."""
    step, evaluation = kernels_of(name)
    return work.model_copy(
        update={
            "step": work.step.model_copy(update={"by_kernel": step}),
            "evaluation": work.evaluation.model_copy(update={"by_kernel": evaluation}),
        }
    )


BERT_BASE_128 = _with_kernels(
    "BERT_BASE_128",
    CellWork(
        step=PassWork(
            documents=32,
            batches=1,
            flops=2_145_449_705_472,
            product_bytes=12_805_138_184,
            other_bytes=22_223_651_985,
            compulsory_bytes=2_599_486_104,
            kernels=833,
        ),
        evaluation=PassWork(
            documents=16,
            batches=2,
            flops=357_574_950_912,
            product_bytes=2_647_959_696,
            other_bytes=2_949_358_534,
            compulsory_bytes=346_138_632,
            kernels=567,
        ),
        checkpoint_bytes=1_299_750_716,
    ),
)
BERT_BASE_128_FP16 = _with_kernels(
    "BERT_BASE_128_FP16",
    CellWork(
        step=PassWork(
            documents=32,
            batches=1,
            flops=2_145_449_705_472,
            product_bytes=6_402_569_092,
            other_bytes=22_833_644_297,
            compulsory_bytes=2_599_486_120,
            kernels=1_310,
        ),
        evaluation=PassWork(
            documents=16,
            batches=2,
            flops=357_574_950_912,
            product_bytes=1_323_979_848,
            other_bytes=3_750_207_710,
            compulsory_bytes=346_138_632,
            kernels=989,
        ),
        checkpoint_bytes=1_299_750_716,
    ),
)
BERT_LARGE_512 = _with_kernels(
    "BERT_LARGE_512",
    CellWork(
        step=PassWork(
            documents=4,
            batches=1,
            flops=4_020_114_604_032,
            product_bytes=26_588_754_024,
            other_bytes=56_648_707_641,
            compulsory_bytes=8_043_461_784,
            kernels=1_603,
        ),
        evaluation=PassWork(
            documents=16,
            batches=2,
            flops=5_360_152_805_376,
            product_bytes=33_027_940_496,
            other_bytes=60_373_563_334,
            compulsory_bytes=1_232_338_952,
            kernels=1_047,
        ),
        checkpoint_bytes=4_021_737_020,
    ),
)
BERT_LARGE_ACCUMULATED = _with_kernels(
    "BERT_LARGE_ACCUMULATED",
    CellWork(
        step=PassWork(
            documents=4,
            batches=4,
            flops=4_020_114_604_032,
            product_bytes=37_500_878_976,
            other_bytes=67_103_086_664,
            compulsory_bytes=8_043_461_784,
            kernels=6_877,
        ),
        evaluation=PassWork(
            documents=16,
            batches=2,
            flops=5_360_152_805_376,
            product_bytes=33_027_940_496,
            other_bytes=60_373_563_086,
            compulsory_bytes=1_232_338_952,
            kernels=1_037,
        ),
        checkpoint_bytes=4_021_737_020,
    ),
)
BERT_LARGE_CHECKPOINTED = _with_kernels(
    "BERT_LARGE_CHECKPOINTED",
    CellWork(
        step=PassWork(
            documents=4,
            batches=4,
            flops=5_360_144_400_384,
            product_bytes=49_986_666_624,
            other_bytes=85_426_165_832,
            compulsory_bytes=8_043_461_784,
            kernels=8_797,
        ),
        evaluation=PassWork(
            documents=16,
            batches=2,
            flops=5_360_152_805_376,
            product_bytes=33_027_940_496,
            other_bytes=60_373_563_086,
            compulsory_bytes=1_232_338_952,
            kernels=1_037,
        ),
        checkpoint_bytes=4_021_737_020,
    ),
)
BERT_LARGE_FP16 = _with_kernels(
    "BERT_LARGE_FP16",
    CellWork(
        step=PassWork(
            documents=4,
            batches=1,
            flops=4_020_114_604_032,
            product_bytes=13_294_377_012,
            other_bytes=63_673_181_025,
            compulsory_bytes=8_043_461_800,
            kernels=2_538,
        ),
        evaluation=PassWork(
            documents=16,
            batches=2,
            flops=5_360_152_805_376,
            product_bytes=16_513_970_248,
            other_bytes=61_596_829_918,
            compulsory_bytes=1_232_338_952,
            kernels=1_877,
        ),
        checkpoint_bytes=4_021_737_020,
    ),
)
BERT_LARGE_CHECKPOINTED_FP16 = _with_kernels(
    "BERT_LARGE_CHECKPOINTED_FP16",
    CellWork(
        step=PassWork(
            documents=4,
            batches=4,
            flops=5_360_144_400_384,
            product_bytes=24_993_333_312,
            other_bytes=111_223_809_524,
            compulsory_bytes=8_043_461_800,
            kernels=14_073,
        ),
        evaluation=PassWork(
            documents=16,
            batches=2,
            flops=5_360_152_805_376,
            product_bytes=16_513_970_248,
            other_bytes=61_596_829_670,
            compulsory_bytes=1_232_338_952,
            kernels=1_867,
        ),
        checkpoint_bytes=4_021_737_020,
    ),
)
BERT_BASE_512 = _with_kernels(
    "BERT_BASE_512",
    CellWork(
        step=PassWork(
            documents=16,
            batches=1,
            flops=4_638_621_450_240,
            product_bytes=35_453_937_032,
            other_bytes=67_903_559_409,
            compulsory_bytes=2_599_489_176,
            kernels=833,
        ),
        evaluation=PassWork(
            documents=16,
            batches=2,
            flops=1_546_207_150_080,
            product_bytes=12_160_641_168,
            other_bytes=22_837_680_070,
            compulsory_bytes=356_758_536,
            kernels=567,
        ),
        checkpoint_bytes=1_299_750_716,
    ),
)
DISTILBERT_512 = _with_kernels(
    "DISTILBERT_512",
    CellWork(
        step=PassWork(
            documents=12,
            batches=1,
            flops=1_739_504_332_800,
            product_bytes=13_427_273_000,
            other_bytes=26_276_815_469,
            compulsory_bytes=1_606_925_200,
            kernels=442,
        ),
        evaluation=PassWork(
            documents=16,
            batches=2,
            flops=773_113_036_800,
            product_bytes=6_082_762_896,
            other_bytes=11_461_650_374,
            compulsory_bytes=186_643_464,
            kernels=321,
        ),
        checkpoint_bytes=803_464_632,
    ),
)
DISTILBERT_512_FP16 = _with_kernels(
    "DISTILBERT_512_FP16",
    CellWork(
        step=PassWork(
            documents=12,
            batches=1,
            flops=1_739_504_332_800,
            product_bytes=6_713_636_500,
            other_bytes=27_952_363_757,
            compulsory_bytes=1_606_925_216,
            kernels=693,
        ),
        evaluation=PassWork(
            documents=16,
            batches=2,
            flops=773_113_036_800,
            product_bytes=3_041_381_448,
            other_bytes=11_525_901_534,
            compulsory_bytes=186_643_464,
            kernels=539,
        ),
        checkpoint_bytes=803_464_632,
    ),
)

# NVIDIA's datasheets: the TITAN RTX, the V100 SXM2 and the A100 40 GB.
_TITAN_RTX, _V100, _A100 = (cards()[name] for name in ("TITAN RTX", "V100 SXM2", "A100 40GB SXM4"))

# BERT base at length 128 and batch 32, 3 epochs, with run_glue.py on a TITAN RTX.
_GLUE = (
    "https://github.com/huggingface/transformers/blob/05ce25bec3bf88363cd6fe05693b6947aba7e604/"
    "examples/pytorch/text-classification/README.md"
)
# BERT large at length 512, one epoch over 512 documents, on a V100 SXM2 16 GB.
_GUIDE = (
    "https://github.com/huggingface/transformers/blob/0016acf7ef421c7fe8eff7945de52c71896c3b01/"
    "docs/source/en/perf_train_gpu_one.mdx"
)
# BERT base at length 512 and batch 16, 3 epochs, with run_glue.py on a V100 16 GB.
_FNET = "https://huggingface.co/google/fnet-base/commit/bc5d07159f6fc5b7505cfe9c70447af583e9f5c3"
# DistilBERT on IMDb at length 512 and batch 12: 35,000 reviews, 3 epochs, 5,000 evaluated after each, an A100.
_BLOG = "https://sebastianraschka.com/blog/2023/pytorch-faster.html"

_GLUE_DOCUMENTS = {"SST-2": 67_349, "CoLA": 8_551, "MNLI": 392_702, "QNLI": 104_743, "RTE": 2_490}


def _job(documents, batch, epochs, *, evaluated=0):
    return Schedule(
        steps=epochs * -(-documents // batch),
        documents=epochs * documents,
        examples_per_epoch=documents,
        evaluations=epochs if evaluated else 0,
        eval_documents=evaluated,
        eval_batches=-(-evaluated // 8),
        checkpoints=0,
    )


def _run(name, work, job, card, dtype, seconds, source):
    rates = Rates("", dtype, card.peak_flops[dtype], card.bandwidth_bytes_per_s)
    return FineTune(name, work, job, rates, seconds, source, card)


def _glue(task, dtype, seconds):
    work = BERT_BASE_128 if dtype == "fp32" else BERT_BASE_128_FP16
    job = _job(_GLUE_DOCUMENTS[task], 32, 3)
    return _run(f"{task} {dtype}", work, job, _TITAN_RTX, dtype, seconds, _GLUE)


FINE_TUNES = (
    _glue("SST-2", "fp32", 1566),
    _glue("SST-2", "fp16", 791),
    _glue("CoLA", "fp32", 197),
    _glue("CoLA", "fp16", 101),
    _glue("MNLI", "fp32", 9323),
    _glue("MNLI", "fp16", 4626),
    _glue("QNLI", "fp32", 2457),
    _glue("QNLI", "fp16", 1216),
    _glue("RTE", "fp32", 57),
    _glue("RTE", "fp16", 29),
    _run("guide, batch 4", BERT_LARGE_512, _job(512, 4, 1), _V100, "fp32", 57.82, _GUIDE),
    _run("guide, 4 of 1", BERT_LARGE_ACCUMULATED, _job(512, 4, 1), _V100, "fp32", 66.03, _GUIDE),
    _run("guide, checkpoints", BERT_LARGE_CHECKPOINTED, _job(512, 4, 1), _V100, "fp32", 85.47, _GUIDE),
    _run("guide, fp16", BERT_LARGE_FP16, _job(512, 4, 1), _V100, "fp16", 27.46, _GUIDE),
    _run("guide, all", BERT_LARGE_CHECKPOINTED_FP16, _job(512, 4, 1), _V100, "fp16", 50.76, _GUIDE),
    _run("MNLI, 512", BERT_BASE_512, _job(392_702, 16, 3), _V100, "fp32", 35_553, _FNET),
    _run("QNLI, 512", BERT_BASE_512, _job(104_743, 16, 3), _V100, "fp32", 9_622, _FNET),
    _run("IMDb", DISTILBERT_512, _job(35_000, 12, 3, evaluated=5000), _A100, "fp32", 1357.8, _BLOG),
    _run("IMDb, fp16", DISTILBERT_512_FP16, _job(35_000, 12, 3, evaluated=5000), _A100, "fp16", 525, _BLOG),
)  # fmt: skip
