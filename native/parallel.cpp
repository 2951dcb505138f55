// One pool of worker threads, which grows to the largest number asked for and sleeps between loops.
#include "parallel.h"

#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

namespace {

struct Loop {
  std::atomic<int64_t> next{0};
  int64_t count;
  void (*body)(void*, int64_t);
  void* context;
  int seats;  // for workers yet to join

  void run() {
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) body(context, i);
  }
};

class Pool {
 public:
  // False when another thread's loop has the pool, or a fork has left it behind.
  bool run(Loop& loop) {
    if (getpid() != process_) return false;
    const std::unique_lock<std::mutex> owner(owner_, std::try_to_lock);
    if (!owner) return false;
    hire(loop.seats);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      loop_ = &loop;
    }
    wake_.notify_all();
    loop.run();
    std::unique_lock<std::mutex> lock(mutex_);
    loop_ = nullptr;  // whoever has not come by now is not needed
    done_.wait(lock, [this] { return working_ == 0; });
    return true;
  }

 private:
  void hire(int workers) try {
    for (; workers_ < workers; workers_++) std::thread([this] { work(); }).detach();
  } catch (const std::system_error&) {  // no more threads to be had: fewer will do
  }

  void work() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [this] { return loop_ && loop_->seats > 0; });
      Loop& loop = *loop_;
      loop.seats--;
      working_++;
      lock.unlock();
      loop.run();
      lock.lock();
      if (--working_ == 0) done_.notify_one();
    }
  }

  const pid_t process_ = getpid();
  std::mutex owner_, mutex_;
  std::condition_variable wake_, done_;
  Loop* loop_ = nullptr;  // the one that may be joined
  int workers_ = 0, working_ = 0;
};

Pool& pool() {
  static Pool* const pool = new Pool;  // never destroyed: workers sleep in it until the process ends
  return *pool;
}

}  // namespace

void parallel_for(int threads, int64_t count, void (*body)(void* context, int64_t i), void* context) {
  Loop loop;
  loop.count = count, loop.body = body, loop.context = context, loop.seats = threads - 1;
  if (!pool().run(loop)) loop.run();
}
