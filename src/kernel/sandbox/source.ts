import type { SandboxError, SandboxJob } from './job.ts';
import { CODE_BYTES_MAX } from './limits.ts';

/**
 * One reading of a source: `prefix + code (with [start, end) replaced by as many characters) + suffix`. The prefix
 * stands on the first line and the replacement keeps its length, so lines and columns are those of the stored source.
 * As a script its completion value is the function to call.
 */
export interface Reading {
  prefix: string;
  start: number;
  end: number;
  replacement: string;
  suffix: string;
}

export interface Readings {
  /** To be compiled in this order; the first that V8 accepts is what the code means. */
  list: Reading[];
  /** Compiled without its suffix when none of them is accepted: for a syntax error that is all the code's own. */
  told: Reading | undefined;
}

const FORBIDDEN_WORD = /\bimport\b/;
const EXPORT_DEFAULT = /^[ \t]*(export[ \t]+default)\b[ \t]*/gm;
const EXPORTS_MAX = 8;
const NAMED_FUNCTION = /^(?:async[ \t]+)?function[ \t]+([\p{ID_Start}$_][\p{ID_Continue}$]*)/u;
const UNNAMED_FUNCTION = /^(async[ \t]+)?function[ \t]*(?=\()/;
const OLDER_FORM =
  /^[ \t]*(?:globalThis\.default\s*=|(?:async[ \t]+)?function[ \t]+(?:main|on)\b|(?:const|let|var)[ \t]+(?:main|on)\s*=)/m;
const BINDING = '$default_';

/**
 * Looks at what must be decided before any child sees the code.
 *
 * @returns The refusal, or undefined when the code may be compiled.
 */
export function refusal(code: string): SandboxError | undefined {
  const bytes = Buffer.byteLength(code);
  if (bytes > CODE_BYTES_MAX) {
    return { code: 'CODE_REFUSED', message: `code: at most ${CODE_BYTES_MAX} bytes, found ${bytes}` };
  }
  const word = FORBIDDEN_WORD.exec(code);
  if (word === null) return undefined;
  return {
    code: 'CODE_REFUSED',
    message: 'code: the word "import" is refused, in strings and comments too; nothing can be loaded here',
    line: code.slice(0, word.index).split('\n').length,
  };
}

/**
 * Lists the ways a source may be meant: an older form, the body of a function, or a module with a default export.
 *
 * V8 decides which one it is. Untrusted code is tried as a body before it is tried as a module: a body never compiles
 * with a real `export`, so an `export default` inside a comment or a string of a body is not taken for one.
 */
export function readings(job: Pick<SandboxJob, 'code' | 'trust' | 'entry'>): Readings {
  const { code, trust, entry } = job;
  const modules = moduleReadings(code);
  const older = OLDER_FORM.test(code) ? [olderReading(trust, entry)] : [];
  if (trust === 'kernel') return { list: [...modules, ...older], told: modules[0] ?? older[0] };
  const parameter = entry === 'on' ? 'span' : 'input';
  const body = whole(`(async function(${parameter}){`, '\n})');
  return { list: [...older, body, ...modules], told: modules[0] ?? whole(`async function $(${parameter}){`, '') };
}

function moduleReadings(code: string): Reading[] {
  const found: Reading[] = [];
  for (const match of code.matchAll(EXPORT_DEFAULT)) {
    if (found.length === EXPORTS_MAX) break;
    const words = match[1] ?? '';
    const start = match.index + match[0].indexOf(words);
    found.push(moduleReading(code, start, words.length, match.index + match[0].length));
  }
  return found;
}

function moduleReading(code: string, start: number, wordsLength: number, after: number): Reading {
  const rest = code.slice(after, after + 512);
  const prefix = "'use strict';";
  const named = NAMED_FUNCTION.exec(rest);
  if (named !== null) {
    return { prefix, start, end: start + wordsLength, replacement: ' '.repeat(wordsLength), suffix: `\n;${named[1]}` };
  }
  const suffix = `\n;${BINDING}`;
  const unnamed = UNNAMED_FUNCTION.exec(rest);
  if (unnamed !== null) {
    // Named in place rather than assigned: it stays a declaration, hoisted and in no need of a semicolon.
    const end = after + unnamed[0].length;
    const replacement = `${unnamed[1] ? 'async ' : ''}function ${BINDING}`.padStart(end - start);
    return { prefix, start, end, replacement, suffix };
  }
  return { prefix, start, end: start + wordsLength, replacement: `var ${BINDING}=`.padStart(wordsLength), suffix };
}

function olderReading(trust: SandboxJob['trust'], entry: SandboxJob['entry']): Reading {
  const names = entry === 'on' ? ['globalThis.default', 'on', 'main'] : ['globalThis.default', 'main', 'on'];
  const choice = names.map((name) => `typeof ${name}==='function'?${name}:`).join('');
  return whole(trust === 'kernel' ? "'use strict';" : '', `\n;${choice}undefined`);
}

function whole(prefix: string, suffix: string): Reading {
  return { prefix, start: 0, end: 0, replacement: '', suffix };
}
