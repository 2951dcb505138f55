// Loops shared by threads that may or may not come. A worker joins a loop if it gets a core in time; the caller never waits
// for one that has not started, so beside busy neighbours it simply does more of the work itself. (An OpenMP region waits
// for all its threads at both ends.) In a forked child no worker is left, and the caller does everything.
#pragma once
#include <cstdint>

// Calls body(context, i) once for each i in [0, count), in any order, on at most `threads` threads. Bodies must not throw: they
// have their memory from before the loop. The loop itself does not: without memory for threads it takes fewer.
void parallel_for(int threads, int64_t count, void (*body)(void* context, int64_t i), void* context);

// The same for a function object.
template <class Body>
void parallel_for(int threads, int64_t count, Body&& body) {
  if (threads <= 1 || count <= 1) {
    for (int64_t i = 0; i < count; i++) body(i);
    return;
  }
  parallel_for(threads, count, [](void* context, int64_t i) { (*static_cast<decltype(&body)>(context))(i); }, &body);
}
