/**
 * Hostile code of our own. Each attack calls `see(x)` with whatever it got hold of; `see` notes an object of another
 * realm, or a way to run text as code in one. An attack that cannot return loops for ever instead when it has won.
 */
export interface Attack {
  group: string;
  name: string;
  /** Body of an async function; `see`, `planted()` and `input` are at hand. */
  code: string;
  /** How the run may end; by default it returns. */
  ends?: string[];
  /** Sent as it is, without the prologue. */
  raw?: boolean;
}

export const PROLOGUE = [
  'let won = false; const planted = () => won; const own = Object.prototype.hasOwnProperty; ',
  'let busy = false; const see = (x) => { if (busy || x === null || (typeof x !== "object" && typeof x !== "function")) return; busy = true; ',
  'try { let last = x; for (let o = x; o !== null; o = Reflect.getPrototypeOf(o)) last = o; ',
  'if (last !== Object.prototype && own.call(last, "__defineGetter__")) won = true; } catch {} ',
  'for (const make of [() => x.constructor.constructor, () => x.constructor, () => x]) { try { ',
  'const there = make()("return this")(); if (own.call(there, "globalThis") && (there !== globalThis || "process" in there)) won = true; } catch {} } busy = false; }; ',
].join('');

/** The attack as source of an untrusted function that returns whether it planted something. */
export function sourceOf(attack: Attack): string {
  return attack.raw ? attack.code : `${PROLOGUE}${attack.code}\n;return { planted: planted() };`;
}

const THREW = ['THREW'];
const LATE = ['TIMEOUT'];
const FULL = ['MEMORY'];
const FULL_OR_LATE = ['MEMORY', 'TIMEOUT'];

function group(name: string, attacks: [name: string, code: string, ends?: string[], raw?: boolean][]): Attack[] {
  return attacks.map(([title, code, ends, raw]) => ({
    group: name,
    name: title,
    code,
    ...(ends === undefined ? {} : { ends }),
    ...(raw === undefined ? {} : { raw }),
  }));
}

export const ATTACKS: Attack[] = [
  ...group('constructor chains', [
    ['function constructor', 'see(() => {}); see(function () {});'],
    ['async function constructor', 'see((async () => {}).constructor); see(async () => {});'],
    ['generator constructors', 'see(function* () {}); see(async function* () {});'],
    ['input and its chain', 'see(input); see(input.constructor); see(Reflect.getPrototypeOf(input).constructor);'],
    ['callee and caller', 'try { see((function () { return arguments.callee.caller; })()); } catch (e) { see(e); }'],
    ['this of a sloppy function', 'see((function () { return this; })());'],
    [
      'global and its chain',
      'for (let o = globalThis; o; o = Reflect.getPrototypeOf(o)) { see(o); see(o.constructor); }',
    ],
    [
      'everything reachable',
      `const met = new Set(); const open = [globalThis, input, see];
       while (open.length) { const x = open.pop();
         if (x === null || (typeof x !== 'object' && typeof x !== 'function') || met.has(x)) continue;
         met.add(x); see(x); open.push(Reflect.getPrototypeOf(x));
         for (const k of Reflect.ownKeys(x)) { const d = Reflect.getOwnPropertyDescriptor(x, k);
           if (d) open.push(d.value, d.get, d.set); } }`,
    ],
    [
      'names of the host',
      `for (const n of ['process', 'require', 'module', 'global', 'Buffer', 'setTimeout', 'queueMicrotask', 'fetch', 'console',
       'WebAssembly', 'SharedArrayBuffer', 'Atomics', 'WeakRef', 'FinalizationRegistry', 'structuredClone', 'navigator'])
       if (n in globalThis) won = true;`,
    ],
    [
      'eval',
      'try { (0, eval)("1"); won = true; } catch (e) { see(e); } try { eval("1"); won = true; } catch (e) { see(e); }',
    ],
    ['new Function', 'try { new Function("1"); won = true; } catch (e) { see(e); }'],
    [
      'breaking out of the wrapper',
      '}); globalThis.out = 1; (async function (input) { const planted = () => false; const see = 0;',
    ],
  ]),
  ...group('errors and stacks', [
    ['symbol as name', 'const e = new Error("x"); e.name = Symbol("s"); try { see(e.stack); } catch (x) { see(x); }'],
    [
      'symbol as message',
      'const e = new Error("x"); e.message = Symbol("s"); try { see(e.stack); } catch (x) { see(x); }',
    ],
    [
      'capture on an object with a symbol name',
      'const o = { name: Symbol("s") }; try { Error.captureStackTrace(o); see(o.stack); } catch (x) { see(x); }',
    ],
    [
      'prepareStackTrace',
      'Error.prepareStackTrace = (e, frames) => { see(frames); for (const f of frames) { see(f); see(f.getThis()); } }; see(new Error("x").stack);',
    ],
    [
      'moving the locked limit',
      'try { Error.stackTraceLimit = 50; } catch {} try { Object.defineProperty(Error, "stackTraceLimit", { value: 9 }); } catch {} if (new Error("x").stack !== undefined) won = true;',
    ],
    [
      'limit of a subclass',
      'class E extends Error {} E.stackTraceLimit = 9; const e = new E("x"); e.name = Symbol(); try { see(e.stack); } catch (x) { see(x); }',
    ],
    [
      'toString that throws as name',
      'const e = new Error("x"); e.name = { toString() { throw 1; } }; try { see(e.stack); } catch (x) { see(x); }',
    ],
    [
      'suppressed errors',
      `const bad = () => { const e = new Error("x"); e.name = Symbol(); throw e; };
       try { const s = new DisposableStack(); s.defer(bad); s.defer(bad); s.dispose(); }
       catch (x) { see(x); see(x.error); see(x.suppressed); try { see(x.stack); } catch (y) { see(y); } }`,
    ],
    [
      'fromAsync of a bad iterable',
      'try { await Array.fromAsync({ [Symbol.asyncIterator]: 1 }); } catch (x) { see(x); }',
    ],
    [
      'aggregate',
      'try { await Promise.any([Promise.reject(Object.assign(new Error(), { name: Symbol() }))]); } catch (x) { see(x); see(x.errors); try { see(x.stack); } catch (y) { see(y); } }',
    ],
    [
      'errors of built-ins',
      'for (const f of [() => null.x, () => x1, () => new Array(-1), () => decodeURI("%"), () => JSON.parse("{"), () => 1n + 1, () => Symbol() + ""]) try { f(); } catch (x) { see(x); }',
    ],
    [
      'stack getter that is a proxy, thrown out',
      'const e = {}; Object.defineProperty(e, "stack", { get: new Proxy(function () {}, { apply(t, s, args) { see(args); if (won) for (;;); } }) }); throw e;',
      THREW,
    ],
    [
      'stack setter that is a proxy, thrown out',
      'const e = new Error("x"); Object.defineProperty(e, "stack", { get: () => "x", set: new Proxy(function () {}, { apply(t, s, args) { see(args); if (won) for (;;); } }) }); throw e;',
      THREW,
    ],
  ]),
  ...group('errors before the function is there', [
    [
      'stack getter that is a proxy',
      `${PROLOGUE}const e = {}; Object.defineProperty(e, "stack", { get: new Proxy(function () {}, { apply(t, s, args) { see(args); if (won) for (;;); } }) }); throw e;\nexport default () => 1;`,
      THREW,
      true,
    ],
    [
      'stack setter that is a proxy',
      `${PROLOGUE}const e = new Error("x"); Object.defineProperty(e, "stack", { get: () => "x", set: new Proxy(function () {}, { apply(t, s, args) { see(args); if (won) for (;;); } }) }); throw e;\nexport default () => 1;`,
      THREW,
      true,
    ],
    [
      'thrown proxy',
      `${PROLOGUE}throw new Proxy(new Error("x"), { get(t, k, r) { see(t); if (typeof k === "symbol") for (;;); } });\nexport default () => 1;`,
      THREW,
      true,
    ],
  ]),
  ...group('stack overflow', [
    ['plain recursion', 'const f = () => f(); try { f(); } catch (x) { see(x); }'],
    ['inside a getter', 'const o = { get a() { return this.a; } }; try { o.a; } catch (x) { see(x); }'],
    [
      'inside toJSON',
      'const o = { toJSON() { return JSON.stringify(this); } }; try { JSON.stringify(o); } catch (x) { see(x); }',
    ],
    [
      'inside proxies',
      'let p = {}; for (let i = 0; i < 1e5; i++) p = new Proxy(p, {}); try { p.x; } catch (x) { see(x); }',
    ],
    [
      'at every depth, reading the stack',
      'const f = (n) => { try { f(n + 1); } catch (x) { see(x); const e = new Error(); e.name = Symbol(); try { e.stack; } catch (y) { see(y); } } }; f(0);',
    ],
    [
      'rejecting at the edge',
      'const f = () => { try { f(); } catch (x) { see(x); Promise.reject(x).catch(see); new Promise(() => { throw x; }).catch(see); } }; f(); await null;',
    ],
    ['inside a comparator', 'const f = () => [2, 1].sort(f); try { f(); } catch (x) { see(x); }'],
    [
      'inside the returned value',
      'const a = []; let b = a; for (let i = 0; i < 1e5; i++) { b[0] = []; b = b[0]; } return a;',
      THREW,
    ],
    ['inside a replace callback', 'const f = () => "a".replace(/a/, f); try { f(); } catch (x) { see(x); }'],
  ]),
  ...group('proxies and getters', [
    [
      'thrown proxy',
      'throw new Proxy({}, { get(t, k, r) { see(t); see(r); if (won) for (;;); }, getPrototypeOf(t) { see(t); return null; } });',
      THREW,
    ],
    ['thrown function with a message', 'const f = () => {}; f.message = "m"; throw f;', THREW],
    ['message getter that throws', 'throw { get message() { throw { get message() { throw 1; } }; } };', THREW],
    ['message of a wrong kind', 'throw { message: { toString() { for (;;); } } };', THREW],
    ['thrown symbol', 'throw Symbol("x");', THREW],
    ['thrown null', 'throw null;', THREW],
    [
      'returned proxy',
      'return new Proxy({}, { ownKeys(t) { see(t); return []; }, get(t, k, r) { see(t); see(r); return k === "toJSON" ? () => ({ planted: won }) : undefined; } });',
    ],
    ['toJSON that looks around', 'return { toJSON(...args) { see(args); see(this); return { planted: won }; } };'],
    [
      'has and get of a with-like global',
      'Reflect.setPrototypeOf(globalThis, new Proxy({}, { has(t, k) { see(t); return false; }, get(t, k, r) { see(r); } })); try { nothing; } catch (x) { see(x); }',
    ],
  ]),
  ...group('promises and async generators', [
    [
      'species',
      'class P extends Promise { static get [Symbol.species]() { return function (f) { f((x) => see(x), (x) => see(x)); see(f); }; } } P.resolve(1).then(see); await null;',
    ],
    [
      'returned thenable',
      'return { then(resolve, reject) { see(resolve); see(reject); see(arguments); resolve({ planted: won }); } };',
    ],
    [
      'thenable on Object.prototype',
      'Object.prototype.then = function (r) { see(r); see(this); delete Object.prototype.then; r({ planted: won }); }; return {};',
    ],
    [
      'overridden then',
      'Promise.prototype.then = function (a, b) { see(a); see(b); see(this); }; await Promise.resolve(1);',
    ],
    [
      'constructor of promises',
      'Object.defineProperty(Promise.prototype, "constructor", { get() { see(this); return Promise; } }); await Promise.resolve(1);',
    ],
    [
      'async generator return',
      'async function* g() { try { yield 1; } finally { see(g); } } const i = g(); await i.next(); await i.return({ get then() { see(this); } });',
    ],
    [
      'async generator of a rejected thenable',
      'async function* g() { yield* { [Symbol.asyncIterator]() { return { next() { return 1; } }; } }; } try { await g().next(); } catch (x) { see(x); }',
    ],
    [
      'resolving with itself',
      'let r; const p = new Promise((x) => { r = x; }); r(p); try { await p; } catch (x) { see(x); }',
    ],
    [
      'rejection of a promise with a called proxy in its chain',
      `class P extends Promise {} const made = [];
       for (const make of [(f, h) => new Proxy(f, h), (f, h) => Proxy.revocable(f, h).proxy]) try {
         made.push(make(function () {}, { apply(t, s, args) { see(args); return Reflect.get(...args); } })); } catch (x) { see(x); }
       for (const get of made) { Reflect.setPrototypeOf(P.prototype, new Proxy(Promise.prototype, { get })); P.reject(1); await null; }`,
    ],
    [
      'rejection of a promise with a broken proxy in its chain',
      `for (const handler of [{ get: 1 }, { get() { throw new Error('x'); } }, new Proxy({}, { get(t) { see(t); return 1; } })]) {
         class P extends Promise {} Reflect.setPrototypeOf(P.prototype, new Proxy(Promise.prototype, handler));
         try { const p = new Promise((a, b) => setTimeout(b)); } catch {}
         try { let no; const p = new Promise((a, b) => { no = b; }); Reflect.setPrototypeOf(p, P.prototype); no(1); } catch (x) { see(x); } await null; }`,
    ],
    [
      'numbers of our own for the hook of rejections',
      `for (const value of [NaN, -5, 1e9, {}, 'x']) { let no; const q = new Promise((a, b) => { no = b; });
         Reflect.setPrototypeOf(q, new Proxy(Promise.prototype, { get(t, k, r) { return typeof k === 'symbol' ? value : Reflect.get(t, k, r); } })); no(1); }
       await null;`,
      // Node checks them and gives up, which ends nobody but the attacker.
      FULL,
    ],
    ['warnings of the engine', 'function a(x) { "use asm"; return { x: 1 }; } a();'],
    [
      'many unhandled rejections',
      'for (let i = 0; i < 1e4; i++) Promise.reject(new Proxy({}, { get: (t, k) => see(t) }));',
    ],
    ['resolving twice', 'new Promise((a, b) => { a(1); a(2); b(3); }); await null;'],
  ]),
  ...group(
    'pollution of the next run',
    [
      [
        'Object.prototype',
        'Object.prototype.planted = 1; Object.prototype.toJSON = () => ({ polluted: true });',
        undefined,
      ],
      ['index setters', 'Object.defineProperty(Array.prototype, "0", { set(x) { see(x); }, get() { return 7; } });'],
      ['JSON', 'JSON.stringify = () => { throw 1; }; JSON.parse = () => ({ planted: true });'],
      [
        'Reflect and Function.prototype',
        'Reflect.apply = Reflect.ownKeys = () => { throw 1; }; Function.prototype.call = Function.prototype.apply = () => { throw 1; };',
      ],
      ['String.prototype', 'String.prototype.slice = () => "planted"; String.prototype.toString = () => "planted";'],
      ['iterators', 'Reflect.getPrototypeOf([][Symbol.iterator]()).next = () => ({ done: true });'],
      ['globals', 'globalThis.planted = 1; globalThis.default = () => ({ planted: true }); globalThis.input = 1;'],
      [
        'frozen global',
        'Object.freeze(Object.prototype); Object.freeze(globalThis); Object.freeze(Promise.prototype);',
      ],
      [
        'continuation left behind',
        'const wake = () => Promise.resolve().then(() => { globalThis.planted = 1; }); wake(); (async () => { await new Promise(() => {}); globalThis.planted = 1; })();',
      ],
    ].map(([name, code]) => [name, code] as [string, string]),
  ),
  ...group('loading', [
    ['plain', 'await import("node:fs");', ['CODE_REFUSED']],
    ['with a comment inside', 'await import/**/("node:fs");', ['CODE_REFUSED']],
    ['meta', 'return import.meta;', ['CODE_REFUSED']],
    ['in a regular expression', 'return /import/.test("x");', ['CODE_REFUSED']],
    ['escaped keyword', 'await im\\u0070ort("node:fs");', ['CODE_INVALID']],
    ['assembled text', 'try { await eval("imp" + "ort(\'node:fs\')"); won = true; } catch (x) { see(x); }'],
    ['require', 'try { require("fs"); won = true; } catch (x) { see(x); }'],
    ['html comment', '<!-- x\n--> y\ntry { process.exit(); won = true; } catch (x) { see(x); }'],
  ]),
  ...group('memory', [
    ['filled buffers', 'const a = []; for (;;) a.push(new Uint8Array(4e6).fill(1));', FULL],
    ['one giant buffer', 'new Uint8Array(2e9).fill(1);', [...FULL, ...THREW]],
    [
      'untouched buffers',
      'const a = []; for (let i = 0; i < 1e5; i++) a.push(new ArrayBuffer(1e8));',
      [...FULL_OR_LATE, ...THREW],
    ],
    [
      'catching every refusal',
      'const a = []; for (;;) try { a.push(new Uint8Array(3e8).fill(1)); } catch {}',
      FULL_OR_LATE,
    ],
    ['arrays', 'const a = []; for (;;) a.push([1, 2, 3, {}]);', FULL_OR_LATE],
    [
      'strings',
      'const a = []; for (let i = 0; ; i++) a.push(("x" + i).repeat(1e5).split("").join("y"));',
      FULL_OR_LATE,
    ],
    ['map', 'const m = new Map(); for (let i = 0; ; i++) m.set(i, { i });', FULL_OR_LATE],
    ['promises', 'const a = []; for (;;) a.push(Promise.reject(1));', FULL_OR_LATE],
    [
      'growable buffer',
      'const b = new ArrayBuffer(1, { maxByteLength: 1e9 }); b.resize(1e9); new Uint8Array(b).fill(1);',
      [...FULL, ...THREW],
    ],
    ['big integer', 'let n = 3n; for (;;) n = n * n;', [...FULL_OR_LATE, ...THREW]],
  ]),
  ...group('time', [
    ['loop', 'for (;;);', LATE],
    ['loop after await', 'await null; for (;;);', LATE],
    ['regular expression', '/^(a+)+$/.test("a".repeat(40) + "b");', LATE],
    ['indexOf of a huge array-like', 'Array.prototype.indexOf.call({ length: 2 ** 52 }, 1);', LATE],
    ['normalize', 'const s = "\\u1E9B\\u0323".repeat(2e6); for (;;) s.normalize("NFKD");', FULL_OR_LATE],
    [
      'join of a sparse array',
      'Object.setPrototypeOf(Array.prototype, { 0: 1 }); new Array(2 ** 32 - 1).join("");',
      [...FULL_OR_LATE, ...THREW],
    ],
    [
      'promise flood',
      'const f = () => Promise.resolve().then(f).then(f); f(); await new Promise(() => {});',
      FULL_OR_LATE,
    ],
    ['endless chain', 'const f = async () => { for (;;) await null; }; await f();', LATE],
    ['loop while being written out', 'return { toJSON() { for (;;); } };', LATE],
    ['loop while being described', 'throw { get message() { for (;;); } };', LATE],
    ['loop before the function is there', 'for (;;);\nexport default () => 1;', LATE, true],
    ['spread of an endless generator', 'const g = function* () { for (;;) yield; }; Math.max(...g());', FULL_OR_LATE],
    ['never settles', 'await new Promise(() => {});', LATE],
    ['thenable that never answers', 'return { then() {} };', LATE],
  ]),
  ...group('results', [
    ['giant string', 'return "x".repeat(5e6);', ['OUTPUT_TOO_LARGE']],
    ['giant array', 'return new Array(1e6).fill(0);', ['OUTPUT_TOO_LARGE']],
    ['giant message', 'throw new Error("x".repeat(5e7));', THREW],
    ['giant message in wide characters', 'throw new Error("\\u{1F600}".repeat(1e6));', THREW],
    ['own __proto__', 'return JSON.parse(\'{"__proto__":{"planted":true},"a":[{"__proto__":1}]}\');'],
    ['constructor and prototype', 'return { constructor: { prototype: { planted: true } } };'],
    ['cycle', 'const a = {}; a.a = a; return a;', THREW],
    ['big integer', 'return { a: 1n };', THREW],
    ['function', 'return () => 1;', THREW],
    ['symbol', 'return Symbol("x");', THREW],
    ['half a character', 'return { planted: false, half: "\\ud800" };'],
  ]),
];
