/**
 * Every bound of the sandbox that a job cannot change. A job brings its own four limits (time, memory, output, calls);
 * these are the walls around them.
 */

/** Longest source that is accepted, in UTF-8 bytes. */
export const CODE_BYTES_MAX = 256 * 1024;

/** Longest input, environment and code of one run together, in UTF-8 bytes. */
export const RUN_FRAME_BYTES_MAX = 16 * 1024 * 1024;

/** The same for a run in a function of its own: what Lambda takes and answers at once. Source: AWS Lambda quotas. */
export const REMOTE_JOB_BYTES_MAX = 6 * 1024 * 1024;

/** Room for what an answer of that function says beside the result. */
export const RESULT_HEAD_BYTES_MAX = 1024;

/**
 * Levels of lists and objects in a result of untrusted code. Far more than a span holds, far less than what some stack on
 * the way, here or in the runtime of that function, is too short for.
 */
export const RESULT_DEPTH_MAX = 500;

/** What such an answer may take beyond the time of the run: the way there and back, and the start of a container. */
export const REMOTE_START_MS_MAX = 10_000;

/** Longest batch of system calls a kernel may send at once, in UTF-8 bytes. */
export const CALLS_FRAME_BYTES_MAX = 8 * 1024 * 1024;

/** Longest answer of one system call, in characters of its JSON. Beyond it the call is rejected with ANSWER_TOO_LARGE. */
export const ANSWER_CHARS_MAX = 8 * 1024 * 1024;

/** Room for a frame that carries no result: an error with its message and stack. */
export const ERROR_FRAME_BYTES_MAX = 64 * 1024;

/** Less than this cannot be told from the noise of the collector, so a smaller `memoryMb` is raised to it. */
export const MEMORY_MB_MIN = 16;

/** Data segment of a fresh child (V8's own tables, stacks, pools) that `ulimit -d` must leave room for, in MB. */
export const CHILD_BASE_MB = 320;

/** How often deadlines and resident memory of the running children are looked at. */
export const POLL_MS = 10;

/** A child that has not reported itself hardened after this long is killed. */
export const START_MS_MAX = 10_000;

/**
 * Processor seconds a child may use in its whole life (`ulimit -t`), and the running time after which it is retired so
 * that an honest child never meets that limit: one more run of a quarter of an hour, the longest there is, still fits.
 * It only matters when both the parent and its lifeline were killed.
 */
export const CHILD_CPU_SECONDS_MAX = 1_200;
export const CHILD_BUSY_MS_MAX = 300_000;

/** Descriptors a child may own; its bootstrap fills the free ones with /dev/null before any foreign code runs. */
export const CHILD_DESCRIPTORS_MAX = 48;

/**
 * Running time after which a child is given up when another compartment waits and has none. Shorter, and many tenants
 * would mostly wait for processes that start (about 100 ms); longer, and each of them would wait longer for its turn.
 */
export const TENURE_MS = 250;

/** Different pieces of code one child keeps compiled; it is retired after that many. */
export const COMPILED_MAX = 256;

/** Random UUIDs a kernel gets with its start and with every answer (`ctx.randomUUID` draws from this stock). */
export const UUIDS_AT_START = 32;
export const UUIDS_PER_ANSWER = 16;

/**
 * Runs that a child gets together, as long as the code of each took less than `QUICK_MS` there the last time, and the
 * bytes after which nothing more goes along. A child that says nothing of them for so many looks of the poll is given up
 * (looks, and not time: a host that was busy itself has heard nothing either), and each of them runs again, alone; for
 * `ALONE_MS` that tenant's runs then go one by one.
 */
export const TOGETHER_MAX = 8;
export const TOGETHER_BYTES_MAX = 64 * 1024;
export const QUICK_MS = 5;
export const SILENT_LOOKS_MAX = 100 / POLL_MS;
export const ALONE_MS = 10_000;
