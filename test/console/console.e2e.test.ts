import type { Browser, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Client } from '../../src/client/index.ts';
import type { Ready } from '../../src/local/stack.ts';
import type { StoredSpan } from '../../src/span/index.ts';
import { createHome, StackProcess } from '../local/stack-process.ts';
import { findChromium, launch, openTab, type Tab } from './browser.ts';

const chromium = findChromium();
if (chromium === null) process.stderr.write('skipped: the console in a browser; no chromium on the PATH\n');

const ORDER = 'export default function (input) { return { total: input.price * input.count }; }';
const MANIFEST_ID = '00000000-0000-4000-8000-0000000000aa';
/** The machine may have much else to do. */
const TIMEOUT_MS = 8_000;
/** Whatever was on its way has come by then. */
const SETTLED_MS = 1_000;
const PROVED = 'Proved in this browser';

describe.skipIf(chromium === null)('the console', () => {
  let home: string;
  let removeHome: () => Promise<void>;
  let stack: StackProcess;
  let ready: Ready;
  let client: Client;
  let browser: Browser;
  let tab: Tab;
  let page: Page;

  beforeAll(async () => {
    ({ home, remove: removeHome } = await createHome());
    ({ stack, ready } = await StackProcess.start(home));
    client = new Client({ url: ready.url, token: ready.token });
    browser = await launch(chromium as string);
  });
  afterAll(async () => {
    await browser?.close();
    await stack?.kill('SIGKILL');
    await removeHome?.();
  });
  beforeEach(async () => {
    tab = await openTab(browser);
    page = tab.page;
  });
  afterEach(async () => {
    await tab.context.close();
    expect(tab.complaints).toEqual([]);
    expect(tab.asked.filter((url) => url.includes(ready.token))).toEqual([]);
  });

  /** The page as the address that a start prints opens it, and then one of its views. */
  async function open(route = '#/timeline'): Promise<void> {
    await page.goto(`${ready.url}/console#token=${ready.token}`);
    await page.getByRole('heading', { name: 'Timeline' }).waitFor();
    await page.evaluate(`location.hash = ${JSON.stringify(route)}`);
  }

  function note(name: string, more: object = {}) {
    return client.append({ entity_type: 'note', did: 'noted', name, visibility: 'private', ...more });
  }

  function deploy(name: string, code: string, before?: { id: string; seq: number }) {
    const version = before === undefined ? {} : { id: before.id, seq: before.seq + 1 };
    const fn = { entity_type: 'function', did: 'deployed', status: 'active', visibility: 'private' } as const;
    return client.append({ ...version, ...fn, name, code, language: 'javascript' });
  }

  const eventually = (what: () => unknown) => expect.poll(what, { timeout: TIMEOUT_MS });
  const rows = () => page.locator('main ol.rows > li');
  const row = (text: string) => rows().filter({ hasText: text });
  const proof = () => page.locator('#proof');
  const focused = () => page.evaluate('document.activeElement.getAttribute("href") ?? document.activeElement.name');

  /** Change what the server answers about a span's versions before the page sees it. */
  async function intercept(id: string, change: (versions: StoredSpan[]) => StoredSpan[]): Promise<void> {
    await page.route(`**/api/spans/${id}/versions`, async (route) => {
      const response = await route.fetch();
      const body = await response.json();
      await route.fulfill({ response, json: { ...body, versions: change(body.versions) } });
    });
  }

  describe('who looks', () => {
    it('asks for a token, says that a wrong one is not known, and opens with the right one', async () => {
      await page.goto(`${ready.url}/console`);
      await page.getByLabel('Token').fill('llt_not_a_token');
      await page.getByRole('button', { name: 'Open the console' }).click();
      await page.getByText('This token is not known here').waitFor();
      await page.getByLabel('Token').fill(ready.token);
      await page.keyboard.press('Enter');
      await page.getByText('local · local').waitFor();
      await row('run_code_kernel').first().waitFor();
      expect(tab.complaints.splice(0)).toEqual([expect.stringContaining('401')]); // Chromium's own word about it
    });

    it('takes the token out of the address, keeps it for this tab, and forgets it on sign out', async () => {
      await page.goto(`${ready.url}/console#token=${ready.token}`);
      await page.getByRole('heading', { name: 'Timeline' }).waitFor();
      expect(page.url()).toBe(`${ready.url}/console#/timeline`);
      await page.reload();
      await page.getByText('local · local').waitFor();
      expect(await page.content()).not.toContain(ready.token);
      await page.getByRole('button', { name: 'Sign out' }).click();
      await page.getByLabel('Token').waitFor();
      expect(await page.evaluate('sessionStorage.length + localStorage.length')).toBe(0);
    });

    it('asks again at once when the token is revoked, and shows nothing more', async () => {
      const { id, token } = await client.createToken({ name: 'for a look', scopes: ['spans:read'] });
      await page.goto(`${ready.url}/console#token=${token}`);
      await page.getByText('live', { exact: true }).waitFor();
      await client.revokeToken(id);
      await page.getByText('This token was revoked.').waitFor();
      await page.getByLabel('Token').waitFor();
      expect(await rows().count()).toBe(0);
    });

    it('says which right a token lacks, and goes on with what it may', async () => {
      const { token } = await client.createToken({ name: 'reads alone', scopes: ['spans:read'] });
      await page.goto(`${ready.url}/console#token=${token}`);
      await page.getByText('live', { exact: true }).waitFor();
      await page.keyboard.press('4');
      await page.getByRole('button', { name: 'Run', exact: true }).click();
      await page.getByText('SCOPE_MISSING').waitFor();
      await page.keyboard.press('Escape');
      await page.getByRole('link', { name: 'Timeline' }).click();
      await row('run_code_kernel').first().waitFor();
      tab.complaints.length = 0; // Chromium's own word about the 403
    });

    it('may load and ask nothing but its own server, and makes no markup of text', async () => {
      await open();
      const violation = page.evaluate(`new Promise((resolve) => {
        addEventListener('securitypolicyviolation', ({ violatedDirective }) => resolve(violatedDirective));
        const script = document.createElement('img');
        script.src = 'https://example.org/x.png';
        document.body.append(script);
      })`);
      expect(await violation).toBe('img-src');
      await expect(page.evaluate('fetch("https://example.org/")')).rejects.toThrow('Failed to fetch');
      await expect(page.evaluate('document.body.innerHTML = "<b>x</b>"')).rejects.toThrow('TrustedHTML');
      expect(tab.complaints.splice(0).filter((text) => !/blocked|Refused/.test(text))).toEqual([]);
    });
  });

  describe('the timeline', () => {
    it('shows a span that is appended, newest first, in a sentence', async () => {
      await open();
      await page.getByText('live', { exact: true }).waitFor();
      const { id } = await note('first light', { status: 'complete' });
      await row('first light').waitFor();
      expect(await rows().first().textContent()).toMatch(/^now\s*note\s*local noted first light\s*complete/);
      expect(await rows().first().locator('a').getAttribute('href')).toBe(`#/span/${id}`);
    });

    it('shows what matches a filter, now and later, under an address that can be shared', async () => {
      await note('apples');
      await open();
      await page.getByLabel('Name').fill('apples');
      await eventually(() => rows().count()).toBe(1);
      expect(page.url()).toBe(`${ready.url}/console#/timeline?name=apples`);
      await note('pears');
      await note('apples', { status: 'active' });
      await eventually(() => rows().count()).toBe(2);
      await page.reload();
      await eventually(() => rows().count()).toBe(2);
      await page.getByLabel('Name').fill('plums');
      await page.getByText('Nothing matches.').waitFor();
    });

    it('shows once what is appended between the look at where it ends and at what is there', async () => {
      await page.route('**/api/spans?*', async (route) => {
        await note('in between', { status: 'seam' });
        await route.continue();
      });
      await open('#/timeline?status=seam');
      await eventually(() => rows().count()).toBeGreaterThan(0);
      const { id } = await note('after it', { status: 'seam' });
      await page.locator(`a[href="#/span/${id}"]`).waitFor();
      const hrefs = await rows()
        .locator('a')
        .evaluateAll((links) => links.map((link) => link.getAttribute('href')));
      expect(new Set(hrefs).size).toBe(hrefs.length);
    });

    it('holds what comes while it is paused', async () => {
      await open();
      await page.getByText('live', { exact: true }).waitFor();
      await page.keyboard.press('p');
      await page.getByText('paused', { exact: true }).waitFor();
      await note('held back');
      await page.getByRole('button', { name: 'Go on, 1 new' }).waitFor();
      expect(await row('held back').count()).toBe(0);
      await page.keyboard.press('p');
      await row('held back').waitFor();
    });

    it('counts as new only what is not shown, when it was paused before the first page came', async () => {
      await open();
      await page.getByText('live', { exact: true }).waitFor();
      await page.route('**/api/spans?status=early*', async (route) => {
        await page.keyboard.press('p');
        await note('on the first page', { status: 'early' });
        await route.continue();
      });
      await page.evaluate('location.hash = "#/timeline?status=early"');
      await row('on the first page').waitFor();
      await page.getByText('paused', { exact: true }).waitFor();
      await note('after the first page', { status: 'early' });
      const goOn = page.getByRole('button', { name: 'Go on, 1 new' });
      await goOn.waitFor();
      await page.waitForTimeout(SETTLED_MS);
      expect(await goOn.count()).toBe(1);
      expect(await rows().count()).toBe(1);
    });

    it('keeps 500 rows however many come', async () => {
      await open();
      const many = Array.from({ length: 60 }, (_, i) => ({
        entity_type: 'note',
        did: 'noted',
        name: `many ${i}`,
        visibility: 'private',
      }));
      for (let i = 0; i < 10; i++) {
        const response = await fetch(`${ready.url}/api/spans`, {
          method: 'POST',
          headers: { Authorization: `Bearer ${ready.token}`, 'Content-Type': 'application/json' },
          body: JSON.stringify({ spans: many }),
        });
        expect(response.status).toBe(201);
      }
      const last = await note('the last of many');
      await page.locator(`a[href="#/span/${last.id}"]`).waitFor();
      expect(await rows().count()).toBe(500);
    });

    it('says when the system is away, and goes on where it was when it is back', async () => {
      await open();
      await page.getByText('live', { exact: true }).waitFor();
      await stack.kill('SIGTERM');
      await page.getByText('no answer, trying again').waitFor();
      ({ stack } = await StackProcess.start(home, { PORT: new URL(ready.url).port }));
      await note('right after');
      await row('right after').waitFor();
      await page.getByText('live', { exact: true }).waitFor();
      expect(await row('right after').count()).toBe(1);
      tab.complaints.length = 0; // Chromium's own words about each connection that failed
    });

    it('shows what a span says as text, whatever it says', async () => {
      const markup = '<img src=x onerror="document.title=1"><script>document.title=2</script>';
      const { id } = await note(markup, { this: 'javascript:alert(1)', content: { [markup]: markup } });
      await open();
      await row('<img src=x').waitFor();
      await page.evaluate(`location.hash = '#/span/${id}'`);
      await page.getByText(PROVED).waitFor();
      expect(await page.locator('main img, main script').count()).toBe(0);
      expect(await page.title()).toBe('Span · LogLineOS');
      expect(await page.locator('a[href^="javascript"]').count()).toBe(0);
    });
  });

  describe('a span', () => {
    it('is proved in the browser, with its versions, its key and what belongs to it', async () => {
      const first = await deploy('versioned', ORDER);
      const second = await deploy('versioned', `${ORDER}\n`, first);
      await open(`#/span/${first.id}`);
      await page.getByText(PROVED).waitFor();
      await page.getByText('Key, trusted here', { exact: true }).waitFor();
      const card = page.locator('.proof');
      expect(await card.textContent()).toContain(second.curr_hash);
      expect(await card.locator('.checks li.good').count()).toBe(4);
      expect(await card.locator('.chain li.good').count()).toBe(2);
      await card.getByText('v0 deployed').click();
      await page.getByText('This is an older version.').waitFor();
      await page.getByText(PROVED).waitFor();
      expect(await card.textContent()).toContain(first.curr_hash);
      expect(page.url()).toContain(`#/span/${first.id}?version=0`);
    });

    it('of many versions shows and proves the wanted one with those before it', async () => {
      const first = await note('long');
      const versions = Array.from({ length: 450 }, () => ({ entity_type: 'note', id: first.id, did: 'changed' }));
      const headers = { Authorization: `Bearer ${ready.token}`, 'Content-Type': 'application/json' };
      const body = JSON.stringify({ spans: versions });
      expect((await fetch(`${ready.url}/api/spans`, { method: 'POST', headers, body })).status).toBe(201);
      await open(`#/span/${first.id}`);
      const chain = page.locator('.proof .chain');
      await page.getByText(PROVED).waitFor();
      expect(await chain.locator('li.good').count()).toBe(200);
      expect(await chain.locator('[aria-current]').textContent()).toMatch(/^v450 changed/);
      expect(await chain.getByText('Later versions').count()).toBe(0);
      await chain.getByText('Earlier versions').click();
      await chain.getByText('v250 changed').waitFor();
      await page.getByText(PROVED).waitFor();
      expect(await chain.locator('[aria-current]').textContent()).toMatch(/^v250 changed/);
      await chain.getByText('Earlier versions').click();
      await chain.getByText('v0 noted').waitFor();
      expect(await chain.getByText('Earlier versions').count()).toBe(0);
      await page.getByText('Key, trusted here', { exact: true }).waitFor();
      await chain.getByText('Later versions').click();
      await page.getByText('version 399 of 0–450').waitFor();
    });

    it('of the system is signed by the key that governs', async () => {
      await open(`#/span/${MANIFEST_ID}`);
      await page.getByText('Key, trusted here: it governs the installation').waitFor();
      expect(await proof().textContent()).toBe(PROVED);
    });

    it('links to what it came from, and what it brought about', async () => {
      if (ready.boot.status === 'refused') throw new Error(ready.boot.error.message);
      const { execution_id, boot_event_id } = ready.boot;
      await open(`#/span/${execution_id}`);
      await page.locator(`dd a[href="#/span/${boot_event_id}"]`).click();
      await page.getByRole('heading', { name: 'What followed' }).waitFor();
      await page.locator(`.rows a[href="#/span/${execution_id}"]`).waitFor();
    });

    const tampers: [string, (versions: StoredSpan[]) => StoredSpan[], RegExp][] = [
      ['a letter', ([v0, v1]) => [v0, { ...v1, name: 'tamperee' }] as StoredSpan[], /content hashes to/],
      [
        'an amount within its JSON',
        ([v0, v1]) => [v0, { ...v1, content: { amount: 11 } }] as StoredSpan[],
        /content hashes to/,
      ],
      [
        'a digit of its signature',
        ([v0, v1]) => [v0, { ...v1, signature: flip((v1 as StoredSpan).signature) }] as StoredSpan[],
        /not a valid signature/,
      ],
      [
        'its key',
        ([v0, v1]) => [v0, { ...v1, public_key: flip((v1 as StoredSpan).public_key) }] as StoredSpan[],
        /not a valid signature/,
      ],
      ['its first version, which is left out,', ([, v1]) => [v1] as StoredSpan[], /version 0 is missing/],
      ['a column that nobody knows', ([v0, v1]) => [v0, { ...v1, extra: 1 }] as StoredSpan[], /no canonical form/],
    ];
    for (const [what, change, says] of tampers) {
      it(`shows as broken when ${what} was changed on the way`, async () => {
        const v0 = await note('tampered', { content: { amount: 10 } });
        await note('tampered', { id: v0.id, seq: 1, content: { amount: 10 } });
        await open();
        await intercept(v0.id, change);
        await page.evaluate(`location.hash = '#/span/${v0.id}'`);
        await page.getByText('Broken: changed on its way from the server').waitFor();
        expect(await page.locator('.proof').textContent()).toMatch(says);
        expect(await page.locator('.proof').getAttribute('class')).toBe('card proof bad');
      });
    }

    it('that is changed in an older version is broken as a whole', async () => {
      const v0 = await note('old lies', { content: { amount: 10 } });
      await note('old lies', { id: v0.id, seq: 1, content: { amount: 12 } });
      await open();
      await intercept(v0.id, ([first, second]) => [{ ...first, content: { amount: 11 } }, second] as StoredSpan[]);
      await page.evaluate(`location.hash = '#/span/${v0.id}'`);
      await page.getByText('Broken: changed on its way from the server').waitFor();
      expect(await page.locator('.chain li.bad').allTextContents()).toEqual([expect.stringContaining('v0')]);
    });

    it('whose key the server says nothing of is not called trusted', async () => {
      const v0 = await note('cut');
      await note('cut', { id: v0.id, seq: 1 });
      await open();
      await page.route(`**/api/spans/${v0.id}/verify*`, async (route) => {
        const response = await route.fetch();
        const body = await response.json();
        await route.fulfill({ response, json: { ...body, versions: body.versions.slice(0, 1), next: 0 } });
      });
      await page.evaluate(`location.hash = '#/span/${v0.id}'`);
      await page.getByText('Whether the installation trusts it is not known.').waitFor();
      expect(await proof().textContent()).toBe('Signed by a key of which nothing is known');
      expect(await page.getByText('Key, trusted here').count()).toBe(0);
    });

    it('whose versions are cut on the way is still asked about to its last one', async () => {
      const v0 = await note('left out');
      await note('left out', { id: v0.id, seq: 1 });
      await open();
      await intercept(v0.id, ([, v1]) => [v1] as StoredSpan[]);
      const asked = page.waitForRequest(`**/api/spans/${v0.id}/verify*`);
      await page.evaluate(`location.hash = '#/span/${v0.id}'`);
      expect((await asked).url()).toMatch(/limit=2$/);
      await page.getByText('Key, trusted here', { exact: true }).waitFor();
    });

    it('that is not there is said to be not there', async () => {
      await open('#/span/11111111-1111-4111-8111-111111111111');
      await page.getByText('There is no such span, or it is not for you to see.').waitFor();
      tab.complaints.length = 0;
    });
  });

  describe('running a function', () => {
    it('runs code once and shows its result, which is a span', async () => {
      await open('#/run');
      await page.getByLabel('Code', { exact: true }).fill('return { sum: input.a + input.b }');
      await page.getByLabel('Input').fill('{"a": 20, "b": 22}');
      await page.keyboard.press('Control+Enter');
      await page.getByRole('heading', { name: 'Result' }).waitFor();
      expect(JSON.parse((await page.getByLabel('result').textContent()) as string)).toEqual({ sum: 42 });
      await page.getByText('The execution, and its proof').click();
      await page.getByText(PROVED).waitFor();
    });

    it('says what is wrong with the input, and runs nothing', async () => {
      await open('#/run');
      await page.getByLabel('Input').fill('{oops');
      await page.getByRole('button', { name: 'Run', exact: true }).click();
      await page.getByText('The input is not JSON').waitFor();
      expect(await focused()).toBe('input');
      expect(tab.asked.filter((url) => url.includes('boot') || url.includes('execute'))).toEqual([]);
    });

    it('keeps code as a function, asks for a run of it, and shows it complete', async () => {
      await open('#/run');
      await page.getByLabel('Code', { exact: true }).fill(ORDER);
      await page.getByLabel('Keep it as').fill('kept_order');
      await page.getByRole('button', { name: 'Save function' }).click();
      await page.getByText('kept_order is kept, version 0.').waitFor();
      expect(await page.getByLabel('Function', { exact: true }).locator('option:checked').textContent()).toBe(
        'kept_order',
      );
      await page.getByLabel('Input').fill('{"price": 20, "count": 3}');
      await page.getByRole('button', { name: 'Run', exact: true }).click();
      await page.getByText('Ended: complete').waitFor();
      expect(JSON.parse((await page.getByLabel('result').textContent()) as string)).toEqual({ total: 60 });
    });

    it('chooses the function that the address names, and shows its code, which stays as it is', async () => {
      const { id } = await deploy('named', ORDER);
      await open(`#/run?function=${id}`);
      await eventually(() => page.getByLabel('Function', { exact: true }).inputValue()).toBe(id);
      expect(await page.getByLabel('Code', { exact: true }).inputValue()).toBe(ORDER);
      expect(await page.getByLabel('Code', { exact: true }).isEditable()).toBe(false);
      await page.getByLabel('Function', { exact: true }).selectOption('');
      expect(await page.getByLabel('Code', { exact: true }).isEditable()).toBe(true);
    });

    it('shows why code failed', async () => {
      await open('#/run');
      await page.getByLabel('Code', { exact: true }).fill('throw new Error("out of ink")');
      await page.getByRole('button', { name: 'Run', exact: true }).click();
      await page.getByRole('heading', { name: 'It failed' }).waitFor();
      await page.getByText('out of ink').waitFor();
    });
  });

  describe('the queue', () => {
    it('shows what waits and what was given up, and cancels and redrives after a question', async () => {
      const { id } = await deploy('flaky', 'export default () => { throw new Error("not today"); }');
      const dead = await client.execute({ span_id: id, max_attempts: 1 });
      const later = await client.execute({ span_id: id, delay_ms: 3_600_000 });
      await eventually(async () => (await client.request(dead.request_id)).status).toBe('dead');
      await open('#/queue');
      await page.getByText('not today').first().waitFor();

      await page.getByRole('button', { name: 'Cancel flaky' }).click();
      await page.getByRole('button', { name: 'Leave it' }).click();
      expect((await client.request(later.request_id)).status).toBe('scheduled');
      await page.getByRole('button', { name: 'Cancel flaky' }).click();
      await page.getByRole('button', { name: 'Cancel request' }).click();
      await page.getByText('The request to run flaky is cancelled.').waitFor();
      expect((await client.request(later.request_id)).status).toBe('cancelled');

      await page.getByRole('button', { name: /^dead/ }).click();
      expect(page.url()).toContain('#/queue?state=dead');
      const redriven = page.locator('tr', { has: page.locator(`a[href="#/span/${dead.request_id}"]`) });
      await redriven.getByRole('button', { name: 'Redrive flaky' }).click();
      await page.getByRole('button', { name: 'Begin again' }).click();
      await page.getByText('The request to run flaky begins again.').waitFor();
      await eventually(async () => (await client.request(dead.request_id)).execution_ids.length).toBe(2);
    });

    it('shows the policies, and what one failed of', async () => {
      await client.append({
        entity_type: 'policy',
        did: 'deployed',
        status: 'active',
        name: 'broken_policy',
        visibility: 'private',
        language: 'javascript',
        code: 'export default function on() { throw new Error("no idea"); }',
        content: { match: { entity_type: ['trigger'] } },
      });
      await client.append({ entity_type: 'trigger', did: 'triggered', visibility: 'private' });
      const failed = () => client.spans({ entity_type: 'policy_error' });
      await eventually(async () => (await failed()).spans.length).toBe(1);
      await open('#/queue');
      const policy = page.locator('.policies li', { hasText: 'broken_policy' });
      await policy.getByText('no idea').waitFor();
      expect(await policy.textContent()).toContain('entity_type trigger');
      await page.locator('.policies li', { hasText: 'slow_exec' }).getByText('of the system').waitFor();
    });
  });

  describe('executions', () => {
    it('are drawn and listed, and the keyboard walks from dot to dot', async () => {
      const { id } = await deploy('drawn', ORDER);
      for (let i = 0; i < 3; i++) await client.execute({ span_id: id, input: { price: i, count: 1 } });
      const ran = async () => (await client.spans({ entity_type: 'execution', name: 'drawn' })).spans.length;
      await eventually(ran).toBe(3);
      await open('#/executions');
      const plot = page.getByRole('group', { name: /Durations of/ });
      await plot.locator('.dot').first().waitFor();
      expect(await plot.locator('.dot').count()).toBe(await page.locator('tbody tr').count());
      expect(await plot.locator('.percentile').allTextContents()).toEqual([
        expect.stringMatching(/^p50 \d/),
        expect.stringMatching(/^p95 \d/),
      ]);
      await plot.locator('.dot').first().hover();
      await page.locator('.readout', { hasText: 'ms complete' }).waitFor();
      await plot.focus();
      for (let i = 0; i < 100; i++) await page.keyboard.press('ArrowRight');
      await page.locator('.readout', { hasText: 'drawn' }).waitFor();
      await page.keyboard.press('Enter');
      await page.getByText(PROVED).waitFor();
    });

    it('appear while one looks', async () => {
      const { id } = await deploy('fresh', ORDER);
      await open('#/executions');
      await page.locator('tbody tr').first().waitFor();
      await client.execute({ span_id: id, input: { price: 1, count: 1 } });
      await page.locator('tbody tr', { hasText: 'fresh' }).waitFor();
      await page.getByText('Kernel boots').click();
      await page.locator('tbody tr', { hasText: 'run_code_kernel' }).first().waitFor();
      expect(page.url()).toContain('#/executions?show=boots');
    });
  });

  describe('without a mouse', () => {
    it('goes to the filter, down and up, opens, and comes back to the same row', async () => {
      for (const name of ['one', 'two', 'three']) await note(`key ${name}`, { status: 'keys' });
      await open('#/timeline?status=keys');
      await eventually(() => rows().count()).toBe(3);
      await page.keyboard.press('/');
      expect(await focused()).toBe('entity_type');
      await page.keyboard.press('Escape');
      const order = await rows()
        .locator('a')
        .evaluateAll((links) => links.map((link) => link.getAttribute('href')));
      for (const [key, expected] of [
        ['j', 0],
        ['j', 1],
        ['j', 2],
        ['j', 2],
        ['k', 1],
      ] as const) {
        await page.keyboard.press(key);
        expect(await focused()).toBe(order[expected]);
      }
      await page.keyboard.press('Enter');
      await page.getByText(PROVED).waitFor();
      await page.keyboard.press('Escape');
      await eventually(focused).toBe(order[1]);
      expect(page.url()).toContain('#/timeline?status=keys');
    });

    it('shows its keys, and goes from view to view', async () => {
      await open();
      await page.keyboard.press('?');
      await page.getByRole('dialog', { name: 'Keys' }).waitFor();
      await page.keyboard.press('Escape');
      await eventually(() => page.getByRole('dialog').count()).toBe(0);
      for (const [key, title] of [
        ['2', 'Executions'],
        ['3', 'Queue'],
        ['4', 'Run'],
        ['1', 'Timeline'],
      ] as const) {
        await page.keyboard.press(key);
        await page.getByRole('heading', { name: title, exact: true, level: 1 }).waitFor();
        expect(await page.locator('nav [aria-current=page]').textContent()).toBe(title);
      }
    });
  });

  it('fits a phone of 360 px: no view scrolls sideways', async () => {
    const long = 'x'.repeat(300);
    const { id } = await note(long, { content: { [long]: long }, status: 'a_rather_long_status_for_a_phone' });
    await tab.context.close();
    tab = await openTab(browser, { width: 360, dark: true });
    page = tab.page;
    await open();
    expect(await page.evaluate('getComputedStyle(document.body).backgroundColor')).toBe('rgb(22, 23, 21)');
    for (const [route, seen] of [
      ['#/timeline', '.rows li'],
      ['#/executions', '.dot'],
      ['#/queue', '.policies li'],
      ['#/run', 'textarea'],
      [`#/span/${id}`, '.checks'],
    ] as const) {
      await page.evaluate(`location.hash = ${JSON.stringify(route)}`);
      await page.locator(seen).first().waitFor();
      expect(await page.evaluate('document.documentElement.scrollWidth'), route).toBeLessThanOrEqual(360);
    }
  });
});

/** The text with its first hex digit changed. */
function flip(hex: string): string {
  return (hex.startsWith('0') ? '1' : '0') + hex.slice(1);
}
