"""The offline teacher on this machine: cold start, texts and images a second, dense features. `python benchmarks/teacher.py`.

Set OMP_WAIT_POLICY=PASSIVE beside a busy neighbour: threads that spin for each other cost more than they bring.
"""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from splatsense.teachers import MiniTeacher
from splatsense.teachers.imagenet_embeddings import imagenet_class_names

COLD_START = """
import time, torch
start = time.perf_counter()
from splatsense.teachers import load_teacher
teacher = load_teacher()
teacher.encode_text(["a chair"])
text = time.perf_counter()
teacher.encode_images(torch.zeros(1, 256, 256, 3))
print(text - start, time.perf_counter() - text)
"""


def seconds(job: Callable[[], object], repeats: int = 3) -> float:
    """Best of `repeats` after one warm-up."""
    job()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        job()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} torch threads")
    output = subprocess.run([sys.executable, "-c", COLD_START], check=True, capture_output=True, text=True).stdout
    first_text, first_image = map(float, output.split())
    print(f"cold start after import torch: first text {first_text:.2f} s, then first image {first_image:.2f} s")
    teacher = MiniTeacher()
    texts = [f"a photo of a {name}" for name in imagenet_class_names()[:512]]
    print(f"1 text    {1e3 * seconds(lambda: teacher.encode_text(texts[:1]), 10):8.1f} ms")
    print(f"512 texts {512 / seconds(lambda: teacher.encode_text(texts)):8.0f} texts/s")
    renders = torch.rand(64, 256, 256, 3, generator=torch.Generator().manual_seed(0))
    print(f"64 images {64 / seconds(lambda: teacher.encode_images(renders)):8.1f} images/s, 256 px arrays")
    picture = torch.rand(1, 480, 480, 3, generator=torch.Generator().manual_seed(0))
    for stride in (16, 8):
        print(f"dense, stride {stride:2} {1e3 * seconds(lambda s=stride: teacher.dense_features(picture, s)):6.0f} ms, 480 px")


if __name__ == "__main__":
    main()
