// Memory for large arrays. Touching fresh memory page by page takes several times as long as what is then written to it, so
// large arrays ask for huge pages.
#pragma once
#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>

// Before the first write: the pages inside, where they are large enough to matter. A hint, which may fail.
inline void prefer_huge_pages(void* memory, int64_t bytes) {
#if defined(MADV_HUGEPAGE)
  constexpr uintptr_t HUGE = 1 << 21;
  const uintptr_t first = (uintptr_t(memory) + HUGE - 1) / HUGE * HUGE, last = (uintptr_t(memory) + bytes) / HUGE * HUGE;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
  (void)memory, (void)bytes;
#endif
}

// Uninitialised, aligned to a cache line; false when there was no memory.
template <class T>
class LargeArray {
 public:
  explicit LargeArray(int64_t count) {
    const int64_t bytes = (count * int64_t(sizeof(T)) + 63) / 64 * 64;
    data_ = static_cast<T*>(std::aligned_alloc(64, bytes));
    if (data_) prefer_huge_pages(data_, bytes);
  }
  ~LargeArray() { std::free(data_); }
  LargeArray(const LargeArray&) = delete;
  LargeArray& operator=(const LargeArray&) = delete;
  explicit operator bool() const { return data_ != nullptr; }
  T* get() const { return data_; }

 private:
  T* data_;
};
