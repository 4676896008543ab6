// Waiting for a condition, with a limit.

const LIMIT_MS = 30_000;

/** Waits until `check` gives something true, and gives that. */
export async function until(what, check) {
  const deadline = performance.now() + LIMIT_MS;
  for (;;) {
    const found = check();
    if (found) return found;
    if (performance.now() > deadline) throw new Error(`${what}: not within ${LIMIT_MS / 1000} s`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
