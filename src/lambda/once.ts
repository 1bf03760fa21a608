/** Build something at its first use and keep it for the container's life; a failure is not kept. */
export function onceUnlessItFails<T>(build: () => Promise<T>): () => Promise<T> {
  let built: Promise<T> | undefined;
  return () => {
    built ??= build().catch((error) => {
      built = undefined;
      throw error;
    });
    return built;
  };
}
