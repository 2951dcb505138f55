// `Turns`: at most so many at once; the others wait, and are let in in the order in which they came.

export class Turns {
  /** @param {number} most  at once */
  constructor(most) {
    this.free = most;
    this.waiting = [];
  }

  /** Wait for a turn, which is to be given back. @param {AbortSignal} signal  ends the waiting with an AbortError */
  async take(signal) {
    signal.throwIfAborted();
    if (this.free > 0) {
      this.free -= 1;
      return;
    }
    await new Promise((enter, leave) => {
      const abort = () => {
        this.waiting.splice(this.waiting.indexOf(entered), 1);
        leave(signal.reason);
      };
      const entered = () => {
        signal.removeEventListener("abort", abort);
        enter();
      };
      this.waiting.push(entered);
      signal.addEventListener("abort", abort, { once: true });
    });
  }

  give() {
    const next = this.waiting.shift();
    if (next) next();
    else this.free += 1;
  }
}
