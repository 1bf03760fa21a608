/**
 * The room that speaks to models. One request and one answer for everybody (`request.ts`, `answer.ts`), one small file
 * for each wire format (OpenAI-compatible, Anthropic Messages, Ollama) and one provider that needs no network (offline).
 *
 * Authoritative for what a request to a model may say, where it goes (the one host that the provider's row names), how
 * often it is tried, and what of the answer is passed on. Knows no ledger: who may call, whether the row proves itself
 * and where its secret lies, Stage-0 decides. Must never follow a redirect, read the environment, keep or tell a secret
 * (what a provider echoes of it is blotted out), or pass on an answer that it has not read whole.
 */
export type { ProviderAnswer } from './answer.ts';
export { type Clock, callProvider } from './call.ts';
export { readProviderRequest } from './request.ts';
export { type Provider, parseProviderContent } from './row.ts';
