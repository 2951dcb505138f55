"""Native code whose n-th allocation fails, for every n: an error each time, and the right result afterwards."""

import os
import shutil
import subprocess
import sys

import pytest

from splatsense.native import load_native

COMPILER = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
FAILING_NEW = r"""
#include <dlfcn.h>
#include <cstdlib>
#include <cstring>
#include <atomic>
#include <new>
static std::atomic<long> left{-1};  // allocations of the native library before one fails
extern "C" void fail_after(long count) { left = count; }
extern "C" long still_left() { return left.exchange(-1); }
static void* allocate(size_t size, size_t alignment, void* caller) {
  Dl_info info;
  if (left >= 0 && dladdr(caller, &info) && info.dli_fname && strstr(info.dli_fname, "libsplatsense") && left-- == 0) {
    throw std::bad_alloc();
  }
  void* memory = nullptr;
  if (posix_memalign(&memory, alignment, size)) throw std::bad_alloc();
  return memory;
}
void* operator new(size_t size) { return allocate(size, 16, __builtin_return_address(0)); }
void* operator new(size_t size, std::align_val_t at) { return allocate(size, size_t(at), __builtin_return_address(0)); }
void operator delete(void* memory) noexcept { free(memory); }
void operator delete(void* memory, size_t) noexcept { free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { free(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { free(memory); }
"""
SCRIPT = """
import ctypes, torch
from splatsense.cameras import Cameras
from splatsense.errors import LimitError
from splatsense.gaussians import Gaussians
from splatsense.render import render
from splatsense.sparse import VoxelNorm

def norm():
    x = torch.linspace(-1, 1, 12000).reshape(3000, 4).requires_grad_()
    VoxelNorm(4)(x, activate=True).square().sum().backward()
    return x.grad

def picture():
    g = torch.Generator().manual_seed(0)
    size = torch.full((2000, 3), 0.02)
    gaussians = Gaussians.from_rgb(torch.rand(2000, 3, generator=g) - 0.5, torch.ones(2000, 4), size, size[:, 0], size)
    return render(gaussians, Cameras.orbit(2, 128)).color

shim = ctypes.CDLL(None)
torch.set_num_threads(3)
for run in (norm, picture):
    count, left, result = 0, -1, None
    while left < 0:  # until more may be allocated than is
        shim.fail_after(ctypes.c_long(count))
        try:
            result = run()
        except LimitError:
            pass
        left, count = shim.still_left(), count + 1
        assert count < 300
    assert torch.equal(result, run())
"""


@pytest.mark.skipif(load_native() is None, reason="the native library is not installed")
@pytest.mark.skipif(COMPILER is None or sys.platform != "linux", reason="no compiler, or another linker's way to replace new")
def test_every_allocation_may_fail(tmp_path):
    (tmp_path / "new.cpp").write_text(FAILING_NEW)
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", tmp_path / "new.so", tmp_path / "new.cpp", "-ldl"], check=True)
    environment = os.environ | {"LD_PRELOAD": str(tmp_path / "new.so")}
    result = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stderr
