// Asking while a person draws: never two requests at once, and always one for what was drawn last.

/**
 * A function that runs some work soon after it is called.
 *
 * Calls within `pause` milliseconds count once; with `whenStill`, the work waits
 * until there was none for so long. A call during the work has it run once more
 * when it is done, so that the newest state is always answered.
 */
export function latest(work, pause, { whenStill = false } = {}) {
  let timer = null;
  let running = false;
  let again = false;

  async function run() {
    timer = null;
    if (running) {
      again = true;
      return;
    }
    running = true;
    try {
      await work();
    } finally {
      running = false;
      if (again) {
        again = false;
        schedule();
      }
    }
  }

  function schedule() {
    if (timer !== null && !whenStill) return;
    clearTimeout(timer);
    timer = setTimeout(run, pause);
  }
  return schedule;
}
