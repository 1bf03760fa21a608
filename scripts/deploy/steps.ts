/** What a deployment says and does. In a dry run it says what it would change, and changes nothing. */
export class Steps {
  readonly isDry: boolean;

  constructor(isDry: boolean) {
    this.isDry = isDry;
  }

  say(line: string): void {
    process.stdout.write(`${line}\n`);
  }

  /** One change of the world outside: said before it is made. */
  async change(what: string, run: () => Promise<unknown>): Promise<void> {
    this.say(this.isDry ? `would ${what}` : what);
    if (!this.isDry) await run();
  }
}
