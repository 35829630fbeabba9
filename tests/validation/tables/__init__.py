"""Published tables of training steps: transformers' attention kernels, a course's GPT, optimum-benchmark."""
