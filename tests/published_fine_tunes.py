"""Published times of whole fine-tunes on GPUs, and the work of their steps. Facts, each with its source.

The runs are from 2020 to 2023: eager attention, and optimizers that loop over parameters. Works are what
`bench.predict.work.count_work` gives for these shapes; tests/integration/test_estimate.py counts two again.
"""

import dataclasses

from bench.analysis.roofline import Job, Rates
from bench.prediction import CellWork, PassWork


@dataclasses.dataclass(frozen=True)
class FineTune:
    """One published run: its work, how often, the card's rates, and the seconds that it took."""

    name: str
    work: CellWork
    job: Job
    rates: Rates
    seconds: float
    source: str


def _work(
    documents,
    batches,
    flops,
    product_bytes,
    other_bytes,
    compulsory_bytes,
    kernels,
    evaluation,
    kept,
):
    step = PassWork(
        documents=documents,
        batches=batches,
        flops=flops,
        product_bytes=product_bytes,
        other_bytes=other_bytes,
        compulsory_bytes=compulsory_bytes,
        kernels=kernels,
    )
    return CellWork(step=step, evaluation=PassWork(**evaluation), checkpoint_bytes=kept)


BERT_BASE_128 = _work(
    32,
    1,
    2_145_449_705_472,
    12_805_138_184,
    22_223_520_905,
    2_599_486_104,
    831,
    {
        "documents": 16,
        "batches": 2,
        "flops": 357574950912,
        "product_bytes": 2647959696,
        "other_bytes": 2949292998,
        "compulsory_bytes": 346138632,
        "kernels": 563,
    },
    1_299_750_716,
)
BERT_BASE_128_FP16 = _work(
    32,
    1,
    2_145_449_705_472,
    6_402_569_092,
    22_833_513_217,
    2_599_486_120,
    1_308,
    {
        "documents": 16,
        "batches": 2,
        "flops": 357574950912,
        "product_bytes": 1323979848,
        "other_bytes": 3750142174,
        "compulsory_bytes": 346138632,
        "kernels": 985,
    },
    1_299_750_716,
)
BERT_LARGE_512 = _work(
    4,
    1,
    4_020_114_604_032,
    26_588_754_024,
    56_648_642_097,
    8_043_461_784,
    1_601,
    {
        "documents": 16,
        "batches": 2,
        "flops": 5360152805376,
        "product_bytes": 33027940496,
        "other_bytes": 60373301190,
        "compulsory_bytes": 1232338952,
        "kernels": 1043,
    },
    4_021_737_020,
)
BERT_LARGE_ACCUMULATED = _work(
    4,
    4,
    4_020_114_604_032,
    37_500_878_976,
    67_103_053_864,
    8_043_461_784,
    6_873,
    {
        "documents": 16,
        "batches": 2,
        "flops": 5360152805376,
        "product_bytes": 33027940496,
        "other_bytes": 60373300942,
        "compulsory_bytes": 1232338952,
        "kernels": 1033,
    },
    4_021_737_020,
)
BERT_LARGE_CHECKPOINTED = _work(
    4,
    4,
    5_360_144_400_384,
    49_986_666_624,
    85_426_133_032,
    8_043_461_784,
    8_793,
    {
        "documents": 16,
        "batches": 2,
        "flops": 5360152805376,
        "product_bytes": 33027940496,
        "other_bytes": 60373300942,
        "compulsory_bytes": 1232338952,
        "kernels": 1033,
    },
    4_021_737_020,
)
BERT_LARGE_FP16 = _work(
    4,
    1,
    4_020_114_604_032,
    13_294_377_012,
    63_673_115_481,
    8_043_461_800,
    2_536,
    {
        "documents": 16,
        "batches": 2,
        "flops": 5360152805376,
        "product_bytes": 16513970248,
        "other_bytes": 61596567774,
        "compulsory_bytes": 1232338952,
        "kernels": 1873,
    },
    4_021_737_020,
)
BERT_LARGE_CHECKPOINTED_FP16 = _work(
    4,
    4,
    5_360_144_400_384,
    24_993_333_312,
    111_223_776_724,
    8_043_461_800,
    14_069,
    {
        "documents": 16,
        "batches": 2,
        "flops": 5360152805376,
        "product_bytes": 16513970248,
        "other_bytes": 61596567526,
        "compulsory_bytes": 1232338952,
        "kernels": 1863,
    },
    4_021_737_020,
)
BERT_BASE_512 = _work(
    16,
    1,
    4_638_621_450_240,
    35_453_937_032,
    67_847_042_793,
    2_599_489_176,
    831,
    {
        "documents": 16,
        "batches": 2,
        "flops": 1546207150080,
        "product_bytes": 12160641168,
        "other_bytes": 22837417926,
        "compulsory_bytes": 356758536,
        "kernels": 563,
    },
    1_299_750_716,
)
DISTILBERT_512 = _work(
    12,
    1,
    1_739_504_332_800,
    13_427_273_000,
    26_276_618_853,
    1_606_925_200,
    440,
    {
        "documents": 16,
        "batches": 2,
        "flops": 773113036800,
        "product_bytes": 6082762896,
        "other_bytes": 11461388230,
        "compulsory_bytes": 186643464,
        "kernels": 317,
    },
    803_464_632,
)
DISTILBERT_512_FP16 = _work(
    12,
    1,
    1_739_504_332_800,
    6_713_636_500,
    27_952_167_141,
    1_606_925_216,
    691,
    {
        "documents": 16,
        "batches": 2,
        "flops": 773113036800,
        "product_bytes": 3041381448,
        "other_bytes": 11525639390,
        "compulsory_bytes": 186643464,
        "kernels": 535,
    },
    803_464_632,
)

# NVIDIA's datasheets: the TITAN RTX, the V100 SXM2 and the A100 40 GB.
_TITAN_RTX = {"fp32": 16.3e12, "fp16": 130.5e12}, 672e9
_V100 = {"fp32": 15.7e12, "fp16": 125e12}, 900e9
_A100 = {"fp32": 19.5e12, "fp16": 312e12}, 1555e9

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
    return Job(
        steps=epochs * -(-documents // batch),
        documents=epochs * documents,
        evaluations=epochs if evaluated else 0,
        eval_documents=evaluated,
        eval_batches=-(-evaluated // 8),
        checkpoints=0,
    )


def _run(name, work, job, card, dtype, seconds, source):
    peaks, bandwidth = card
    return FineTune(name, work, job, Rates("", dtype, peaks[dtype], bandwidth), seconds, source)


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
