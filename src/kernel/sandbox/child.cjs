'use strict';
/**
 * The bootstrap inside a sandbox child: plain JavaScript (no type stripping under --jitless), self-contained, only
 * built-ins of Node. It hardens itself, then serves one run after the other, each in a fresh context.
 *
 * There is no event loop: frames come in on descriptor 0 and leave on descriptor 1 with blocking calls. Each is answered
 * by one, in their order; where several have come, their answers leave together. A frame is four bytes of length (little
 * endian) and UTF-8 text; one that leaves has four more between them, for how many microseconds its run has gone on.
 * Only strings cross into a context, and this file never awaits, inspects or prints an object that came out of one.
 *
 * Not here, on purpose: vm's own `timeout`. Its watchdog needs descriptors, and none are left; the parent's clock ends
 * a run by SIGKILL, which also ends what vm's timeout cannot (built-ins that never look at it).
 *
 * Untrusted code gets no stack lines: V8 would format them with host code that can throw host objects into the
 * context. A syntax error is found by this side and has its line.
 */
const fs = require('node:fs');
const vm = require('node:vm');

// Node's own answer to a rejected promise is host code, called at any depth of foreign code, and it keeps the promise,
// and with it the whole context of that run, for an event loop that never turns here.
// @ts-expect-error Only there under --expose-internals, hence without types.
require('internal/test/binding')
  .internalBinding('task_queue')
  .setPromiseRejectCallback(() => {});

const { readSync, writeSync, openSync } = fs;
const { createContext, Script } = vm;
const BufferHere = Buffer;
const now = performance.now.bind(performance);
/** @type {(code: number) => never} */
const exit = /** @type {any} */ (process).reallyExit.bind(process);
const withBridge = process.argv[2] === 'kernel';

const DOOR_OPEN = 0;
const DOOR_START = 1;
const DOOR_FAIL = 2;
const DOOR_TAKE = 3;
const DOOR_DELIVER = 4;
const DOOR_OPEN_EACH = 5;

/** Contexts that are made ahead. */
const STOCK = withBridge ? 1 : 8;
/** So long, and so much, an answer waits for those of runs that are there already. */
const TOGETHER_MS = 5;
const OUTBOX_BYTES_MAX = 64 * 1024;

const QUIET = { displayErrors: false };
/** @type {import('node:vm').CreateContextOptions} */
const CONTEXT = { codeGeneration: { strings: false, wasm: false }, microtaskMode: 'afterEvaluate' };

/**
 * Runs first in every context, before foreign code. Returns the door: the one function this side calls, with strings
 * (and with the function or error that the same context just produced), which answers strings.
 *
 * @param {boolean} bridge whether this is a kernel's context, with `ctx`
 * @returns {(step: number, value?: any) => string | undefined}
 */
function prelude(bridge) {
  const { parse, stringify } = JSON;
  const { apply, deleteProperty, defineProperty } = Reflect;
  const { slice, split } = String.prototype;
  const asString = String;

  for (const name of ['WebAssembly', 'SharedArrayBuffer', 'Atomics', 'FinalizationRegistry', 'WeakRef', 'console']) {
    deleteProperty(globalThis, name);
  }
  if (!bridge) {
    deleteProperty(Error, 'stackTraceLimit');
    defineProperty(Error, 'stackTraceLimit', { value: undefined, writable: false, configurable: false });
    refuseFunctionProxies();
  }

  /**
   * V8 hands the arguments of a called proxy over in a list that belongs to the caller's realm, and Node's native hook
   * for rejected promises, which looks up two properties of the promise, can be made that caller. So in untrusted code
   * there are proxies of objects, but none that can be called.
   */
  function refuseFunctionProxies() {
    const Native = Proxy;
    const { revocable } = Native;
    /** @param {any} target */
    const check = (target) => {
      if (typeof target === 'function') throw new TypeError('a proxy of a function is refused here');
      return target;
    };
    /**
     * @param {any} target
     * @param {any} handler
     */
    const Limited = function (target, handler) {
      if (new.target === undefined) throw new TypeError("Constructor Proxy requires 'new'");
      return new Native(check(target), handler);
    };
    defineProperty(Limited, 'name', { value: 'Proxy' });
    defineProperty(Limited, 'revocable', {
      value: (/** @type {any} */ target, /** @type {any} */ handler) => revocable(check(target), handler),
    });
    defineProperty(globalThis, 'Proxy', { value: Limited });
  }

  /** @type {any} */
  let argument;
  /** @type {string[] | undefined} of a run for each of many items: the context, then the items, all as JSON */
  let lines;
  /** @type {string | undefined} */
  let finished;
  let pending = 0;
  let outgoing = '';

  /**
   * @param {any} value
   * @returns {string} `O` and JSON, or as `describe` does
   */
  function encode(value) {
    if (value === undefined) return 'Onull';
    let json;
    try {
      json = stringify(value);
    } catch (error) {
      return describe(error, 'the result is not JSON: ');
    }
    if (typeof json === 'string') return `O${json}`;
    return `E"the result is not JSON: it is a ${typeof value}"`;
  }

  /**
   * @param {any} error anything foreign code may throw; every touch of it may run foreign code or throw
   * @param {string} before
   * @returns {string} `E` and the message as JSON; then, in a kernel, further members of the object it belongs to
   */
  function describe(error, before) {
    try {
      let message = '';
      let extra = '';
      if ((typeof error === 'object' && error !== null) || typeof error === 'function') {
        const text = error.message;
        const name = error.name;
        message = typeof text === 'string' ? text : 'an object without a message was thrown';
        if (typeof name === 'string' && name !== 'Error' && name !== '') message = `${name}: ${message}`;
        if (bridge) {
          const { code, stack } = error;
          if (typeof code === 'string') extra += `,"code":${stringify(apply(slice, code, [0, 100]))}`;
          if (typeof stack === 'string') extra += `,"stack":${stringify(apply(slice, stack, [0, 8000]))}`;
        }
      } else {
        message = asString(error);
      }
      return `E${stringify(before + apply(slice, message, [0, 2000]))}${extra}`;
    } catch {
      return 'E"something was thrown that cannot be described"';
    }
  }

  /** @param {string} end of `encode` or `describe` */
  function finish(end) {
    finished = end[0] === 'O' ? end : `E{"message":${apply(slice, end, [1])}}`;
  }

  // Only what foreign code returned is awaited here: the promise of a function of ours would pass through its hands,
  // and it could settle that with anything, where all is built on strings.

  /** @param {any} main */
  async function run(main) {
    try {
      finish(encode(await apply(main, undefined, [argument])));
    } catch (error) {
      finish(describe(error, ''));
    }
  }

  /**
   * @param {any} main called for one item after the other, with a context of its own each time
   * @param {string[]} texts
   */
  async function runEach(main, texts) {
    let list = '';
    for (let n = 1; n < texts.length; n += 1) {
      let end;
      try {
        end = encode(await apply(main, undefined, [parse(texts[n] ?? ''), parse(texts[0] ?? '')]));
      } catch (error) {
        end = describe(error, '');
      }
      list += `${n === 1 ? '' : ','}{"${end[0] === 'O' ? 'value' : 'error'}":${apply(slice, end, [1])}}`;
    }
    finished = `O[${list}]`;
  }

  /** @param {any} main */
  function start(main) {
    if (typeof main !== 'function') finished = 'F';
    else if (lines === undefined) run(main);
    else runEach(main, lines);
  }

  /** @type {(text: string) => void} */
  let deliver = () => {};

  /** @param {string} text */
  let open = (text) => {
    argument = parse(text);
  };

  if (bridge) {
    /** @type {Map<number, { resolve: (value: any) => void, reject: (error: any) => void, error: any }>} */
    const waiting = new Map();
    let uuids = '';
    let lastCall = 0;

    /**
     * @param {string} name
     * @param {any[]} args
     * @returns {Promise<any>}
     */
    const call = (name, args) => {
      // Made here, so that a refused call points to the kernel's line that made it.
      const error = new Error('');
      return new Promise((resolve, reject) => {
        const json = stringify(args);
        lastCall += 1;
        waiting.set(lastCall, { resolve, reject, error });
        pending += 1;
        outgoing += `${outgoing === '' ? '' : ','}[${lastCall},"${name}",${json}]`;
      });
    };

    deliver = (text) => {
      const delivery = parse(text);
      // At most 64: a kernel that runs for minutes gets more than it draws.
      uuids = apply(slice, delivery.uuids + uuids, [0, 64 * 36]);
      for (const [id, ok, value] of delivery.answers) {
        const call = waiting.get(id);
        if (call === undefined) continue;
        waiting.delete(id);
        pending -= 1;
        if (ok) {
          call.resolve(value);
          continue;
        }
        const { error } = call;
        const lines = apply(slice, asString(error.stack), [5]);
        defineProperty(error, 'message', { value: value.message });
        defineProperty(error, 'stack', { value: `Error: ${value.message}${lines}` });
        error.code = value.code;
        call.reject(error);
      }
    };

    open = (text) => {
      const start = parse(text);
      uuids = start.uuids;

      /** @param {any} spans */
      const append = (spans) => {
        const single = !Array.isArray(spans);
        return call('append', [single ? [spans] : spans, single]);
      };

      /**
       * @param {TemplateStringsArray} strings
       * @param {any[]} values
       */
      const sql = (strings, ...values) => {
        if (!Array.isArray(strings) || strings.raw === undefined) {
          throw new TypeError('ctx.sql is a template tag: ctx.sql`select ...`');
        }
        let text = strings[0] ?? '';
        for (let n = 1; n < strings.length; n += 1) text += `$${n}${strings[n]}`;
        return call('sql', [{ text, values }]);
      };

      /**
       * @param {string} key
       * @param {() => any} work
       */
      const lock = async (key, work) => {
        await call('lock', [key]);
        let value;
        try {
          value = await work();
        } catch (error) {
          // The failure of the work is what the kernel must see, not one of the rollback.
          await call('unlock', [key, 'rollback']).catch(() => {});
          throw error;
        }
        await call('unlock', [key, 'commit']);
        return value;
      };

      argument = Object.freeze({
        input: start.input,
        env: Object.freeze(start.env),
        now: () => new Date().toISOString(),
        randomUUID: () => {
          if (uuids === '') throw new Error('ctx.randomUUID: used up until the next answer of a system call');
          const uuid = apply(slice, uuids, [0, 36]);
          uuids = apply(slice, uuids, [36]);
          return uuid;
        },
        sql,
        fetchSpan: (/** @type {any} */ id) => call('fetchSpan', [id]),
        append,
        insertSpan: append,
        lock,
        invoke: (/** @type {any} */ id, /** @type {any} */ input) => call('invoke', [id, input]),
        runSandboxed: (/** @type {any} */ request) => call('runSandboxed', [request]),
        claim: (/** @type {any} */ kind, /** @type {any} */ options = {}) => call('claim', [kind, options]),
        run: (/** @type {any} */ ids) => call('run', [ids]),
        outcomes: (/** @type {any} */ waitMs) => call('outcomes', [waitMs]),
        complete: (/** @type {any} */ items) => call('complete', [items]),
        provider: (/** @type {any} */ id, /** @type {any} */ request) => call('provider', [id, request]),
        crypto: Object.freeze({
          blake3: (/** @type {any} */ text) => call('crypto.blake3', [text]),
          hex: (/** @type {any} */ text) => call('crypto.hex', [text]),
          canonicalize: (/** @type {any} */ value) => call('crypto.canonicalize', [value]),
          encrypt: (/** @type {any} */ text) => call('crypto.encrypt', [text]),
          decrypt: (/** @type {any} */ text) => call('crypto.decrypt', [text]),
        }),
        log: (/** @type {any} */ level, /** @type {any} */ message, /** @type {any} */ data) =>
          call('log', [level, message, data]),
      });
    };
  }

  /** What the parent is told now: the open calls first, then the end; `N` when nothing can ever settle. */
  function take() {
    if (outgoing !== '') {
      const calls = `C[${outgoing}]`;
      outgoing = '';
      return calls;
    }
    if (finished !== undefined) return finished;
    return pending > 0 ? 'C[]' : 'N';
  }

  return (step, value) => {
    // The numbers are DOOR_OPEN … DOOR_OPEN_EACH; this text runs in another realm and cannot name them.
    if (step === 0) open(value);
    else if (step === 1) start(value);
    else if (step === 2) finish(describe(value, ''));
    else if (step === 3) return take();
    else if (step === 4) deliver(value);
    else lines = apply(split, value, ['\n']);
    return undefined;
  };
}

const preludeScript = new Script(`'use strict';(${prelude})(${withBridge})`, { filename: 'prelude' });
const pump = new Script('0');

/** A context that has run the prelude and nothing else. */
function fresh() {
  const context = createContext(vm.constants.DONT_CONTEXTIFY, CONTEXT);
  /** @type {(step: number, value?: any) => string | undefined} */
  const door = preludeScript.runInContext(context, QUIET);
  return { context, door };
}

const smallInbox = BufferHere.alloc(64 * 1024);
let inbox = smallInbox;
/** What has come and is not read yet lies between these two. */
let inboxStart = 0;
let inboxEnd = 0;
/** Frames that are not sent yet. @type {Buffer[]} */
let outbox = [];
let outboxBytes = 0;
/** Since when the first of them waits. */
let waitingSince = 0;
/** When the run that is under way began. */
let begunAt = 0;

/** @param {number} wanted bytes of the inbox that must be there; the process ends when the parent is gone */
function fill(wanted) {
  if (inboxEnd - inboxStart >= wanted) return;
  flush(); // whoever is waited for hears first what there is to say
  if (inboxStart + wanted > inbox.length) {
    const larger = wanted > inbox.length ? BufferHere.allocUnsafe(wanted) : inbox;
    inbox.copy(larger, 0, inboxStart, inboxEnd);
    inbox = larger;
    inboxEnd -= inboxStart;
    inboxStart = 0;
  }
  while (inboxEnd - inboxStart < wanted) {
    const count = readSync(0, inbox, inboxEnd, inbox.length - inboxEnd, null);
    if (count === 0) exit(0);
    inboxEnd += count;
  }
}

/** Whether the next frame is there already. */
function hasNext() {
  const there = inboxEnd - inboxStart;
  return there >= 4 && there >= 4 + inbox.readUInt32LE(inboxStart);
}

/** The next frame. */
function read() {
  fill(4);
  const length = inbox.readUInt32LE(inboxStart);
  fill(4 + length);
  const start = inboxStart + 4;
  const text = inbox.toString('utf8', start, start + length);
  inboxStart = start + length;
  if (inboxStart === inboxEnd) {
    inbox = smallInbox;
    inboxStart = 0;
    inboxEnd = 0;
  }
  return text;
}

function flush() {
  if (outbox.length === 0) return;
  const frames = outbox.length === 1 ? /** @type {Buffer} */ (outbox[0]) : BufferHere.concat(outbox);
  outbox = [];
  outboxBytes = 0;
  for (let at = 0; at < frames.length; ) at += writeSync(1, frames, at, frames.length - at);
}

/**
 * @param {string} text
 * @param {number} bytesMax of the text after its first character; a longer one becomes the frame `B` (too big)
 * @returns {boolean} whether it was sent as it is
 */
function send(text, bytesMax) {
  const bytes = BufferHere.byteLength(text);
  if (bytes - 1 > bytesMax) {
    send('B', 0);
    return false;
  }
  const frame = BufferHere.allocUnsafe(8 + bytes);
  frame.writeUInt32LE(bytes, 0);
  frame.writeUInt32LE(Math.min((now() - begunAt) * 1000, 0xffffffff), 4);
  frame.write(text, 8, 'utf8');
  if (outbox.length === 0) waitingSince = now();
  outbox.push(frame);
  outboxBytes += frame.length;
  return true;
}

/** @type {Map<number, import('node:vm').Script | string>} */
const compiled = new Map();

/**
 * @param {any} job header of a run, with `code` and `readings` when the code is new to this child
 * @returns {import('node:vm').Script | string} the script, or the frame that tells its syntax error
 */
function compile(job) {
  const known = compiled.get(job.script);
  if (known !== undefined) return known;
  /** @type {import('node:vm').Script | string | undefined} */
  let found;
  for (const reading of job.readings) {
    try {
      found = scriptOf(job, reading);
      break;
    } catch {} // the next one may be what is meant
  }
  found ??= job.told === undefined ? 'F' : `S${JSON.stringify(syntaxErrorOf(job))}`;
  compiled.set(job.script, found); // the parent sends the code once, whatever becomes of it
  return found;
}

/**
 * @param {any} job
 * @param {any} reading
 */
function scriptOf({ code, fileName }, { prefix, start, end, replacement, suffix }) {
  const text = prefix + code.slice(0, start) + replacement + code.slice(end) + suffix;
  return new Script(text, { filename: fileName, columnOffset: -prefix.length });
}

/** @param {any} job none of whose readings compiles */
function syntaxErrorOf(job) {
  try {
    scriptOf(job, { ...job.told, suffix: '' });
    // Open at its end, the function that it is the body of is closed all the same.
    return { message: "SyntaxError: Unexpected token '}'", line: 0 };
  } catch (error) {
    const { name, message, stack } = /** @type {Error} */ (error);
    const line = /:(\d+)$/.exec(`${stack}`.split('\n', 1)[0] ?? '');
    return { message: `${name}: ${message}`, line: line ? Number(line[1]) : 0 };
  }
}

/**
 * @param {string} frame lines of JSON: the header, and the argument (with `each` the context and the items, each on a
 *   line of its own), which is only parsed inside the context
 * @param {ReturnType<typeof fresh>} place
 */
function serve(frame, { context, door }) {
  begunAt = now();
  const cut = frame.indexOf('\n');
  const job = JSON.parse(frame.slice(0, cut));
  const script = compile(job);
  if (typeof script === 'string') {
    send(script, job.errorBytes);
    return;
  }
  door(job.each ? DOOR_OPEN_EACH : DOOR_OPEN, frame.slice(cut + 1));
  try {
    door(DOOR_START, script.runInContext(context, QUIET));
  } catch (error) {
    door(DOOR_FAIL, error);
  }
  for (;;) {
    pump.runInContext(context, QUIET);
    const out = door(DOOR_TAKE);
    if (typeof out !== 'string') exit(70);
    const text = /** @type {string} */ (out);
    const kind = text[0];
    const isWhole = send(text, kind === 'O' ? job.outputBytes : kind === 'C' ? job.callsBytes : job.errorBytes);
    if (kind !== 'C' || !isWhole) return; // for the parent, calls that are too large have ended the run
    door(DOOR_DELIVER, read());
  }
}

/** Fills every free descriptor, so that no socket, file or pipe can be made in this process any more. */
function closeDescriptors() {
  for (let count = 0; count < 4096; count += 1) {
    try {
      openSync('/dev/null', 'r');
    } catch (error) {
      return /** @type {any} */ (error).code === 'EMFILE';
    }
  }
  return false;
}

/** Makes this realm worthless: a host object that leaks into a context anyway leads to nothing that can act or change. */
function emptyHostRealm() {
  const ecmaScript = new Set(
    `Object Function Array Number parseFloat parseInt Infinity NaN undefined Boolean String Symbol Date Promise RegExp
    Error AggregateError EvalError RangeError ReferenceError SyntaxError TypeError URIError globalThis JSON Math Intl
    ArrayBuffer Uint8Array Int8Array Uint16Array Int16Array Uint32Array Int32Array Float32Array Float64Array
    Uint8ClampedArray BigUint64Array BigInt64Array DataView Map BigInt Set Iterator WeakMap WeakSet Proxy Reflect
    decodeURI decodeURIComponent encodeURI encodeURIComponent escape unescape isFinite isNaN`.split(/\s+/),
  );
  for (const key of Reflect.ownKeys(process)) Reflect.deleteProperty(process, key);
  Reflect.setPrototypeOf(process, null);
  for (const key of Reflect.ownKeys(globalThis)) {
    if (typeof key === 'symbol' || !ecmaScript.has(key)) Reflect.deleteProperty(globalThis, key);
  }
  const reached = new Set();
  /** @type {any[]} */
  const open = [
    globalThis,
    async () => {},
    function* () {},
    async function* () {},
    [][Symbol.iterator](),
    new Map().entries(),
    new Set().entries(),
    ''[Symbol.iterator](),
    'a'.matchAll(/a/g),
    Iterator.from({ next: () => ({ done: true, value: 0 }) }),
  ];
  while (open.length > 0) {
    const value = open.pop();
    if (value === null || (typeof value !== 'object' && typeof value !== 'function') || reached.has(value)) continue;
    reached.add(value);
    Object.freeze(value);
    open.push(Reflect.getPrototypeOf(value));
    for (const key of Reflect.ownKeys(value)) {
      const property = Reflect.getOwnPropertyDescriptor(value, key);
      open.push(property?.value, property?.get, property?.set);
    }
  }
}

/** @type {ReturnType<typeof fresh>[]} contexts that wait for their runs */
const stock = [fresh()];
// Once through the whole path, so that the first real run finds it warm.
stock.pop()?.door(DOOR_TAKE);
if (!closeDescriptors()) exit(71);
emptyHostRealm();
while (stock.length < STOCK) stock.push(fresh());
send('H', 0);
for (;;) {
  if (!hasNext()) {
    flush();
    // After the answers: who comes next does not wait for a context. Several in a row cost less each.
    while (stock.length < STOCK) stock.push(fresh());
  } else if (outboxBytes > OUTBOX_BYTES_MAX || now() - waitingSince >= TOGETHER_MS) {
    flush();
  }
  serve(read(), stock.pop() ?? fresh());
}
