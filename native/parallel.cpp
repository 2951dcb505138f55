// One pool of worker threads, which grows to the largest number asked for. Between loops a worker looks out for the next one
// for a moment and then sleeps: waking it takes longer than a stage of a small image.
#include "parallel.h"

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <new>
#include <thread>

namespace {

constexpr std::chrono::microseconds MOMENT{50};  // about what it takes to wake a thread

// Whether `ready()` came true within a moment.
template <class Ready>
bool comes_soon(Ready&& ready) {
  const auto end = std::chrono::steady_clock::now() + MOMENT;
  do {
    for (int k = 0; k < 16; k++) {
      if (ready()) return true;
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

struct Loop {
  std::atomic<int64_t> next{0};
  int64_t count;
  void (*body)(void*, int64_t);
  void* context;
  int seats;           // for workers yet to join
  uint64_t number = 0;  // how many loops there have been

  void run() noexcept {  // a body that throws ends the program, rather than the loop while others are at it
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) body(context, i);
  }
};

// The mutex guards joining. It is not held, nor waited for, where threads hand over to one another without sleeping.
class Pool {
 public:
  // False when another thread's loop has the pool, or a fork has left it behind.
  bool run(Loop& loop) {
    if (getpid() != process_) return false;
    const std::unique_lock<std::mutex> owner(owner_, std::try_to_lock);
    if (!owner) return false;
    hire(loop.seats);
    loop.number = newest_ + 1;
    offer(&loop);
    newest_ = loop.number;
    wake_.notify_all();
    loop.run();
    offer(nullptr);  // whoever has not come by now is not needed
    const auto done = [this] { return working_ == 0; };
    if (!comes_soon(done)) {
      std::unique_lock<std::mutex> lock(mutex_);
      sleeping_ = true;
      done_.wait(lock, done);
      sleeping_ = false;
    }
    return true;
  }

 private:
  void hire(int workers) try {
    for (; workers_ < workers; workers_++) std::thread([this] { work(); }).detach();
  } catch (const std::exception&) {  // no more threads to be had: fewer will do
  }

  void offer(Loop* loop) {
    const std::lock_guard<std::mutex> lock(mutex_);
    loop_ = loop;
  }

  void work() {
    uint64_t last = 0;  // the loop that was worked on
    for (;;) {
      std::unique_lock<std::mutex> lock(mutex_);
      const auto open = [&] { return loop_ && loop_->number != last && loop_->seats > 0; };
      if (!open()) wake_.wait(lock, open);
      Loop& loop = *loop_;
      loop.seats--;
      working_++;
      lock.unlock();
      last = loop.number;
      loop.run();
      if (--working_ == 0 && sleeping_) {
        const std::lock_guard<std::mutex> caller(mutex_);  // who has begun to sleep once this is ours
        done_.notify_one();
      }
      comes_soon([&] { return newest_ != last; });
    }
  }

  const pid_t process_ = getpid();
  std::mutex owner_, mutex_;
  std::condition_variable wake_, done_;
  Loop* loop_ = nullptr;  // the one that may be joined
  int workers_ = 0;
  std::atomic<uint64_t> newest_{0};
  std::atomic<int> working_{0};
  std::atomic<bool> sleeping_{false};  // the caller
};

Pool& pool() {
  alignas(Pool) static char memory[sizeof(Pool)];  // needs none when there is none
  static Pool* const pool = new (memory) Pool;     // never destroyed: workers sleep in it until the process ends
  return *pool;
}

}  // namespace

void parallel_for(int threads, int64_t count, void (*body)(void* context, int64_t i), void* context) {
  Loop loop;
  loop.count = count, loop.body = body, loop.context = context, loop.seats = threads - 1;
  if (!pool().run(loop)) loop.run();
}
