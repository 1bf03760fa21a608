/** `npm run rebuild`: make the derived tables again from the ledger. */
import { failureText } from '../src/errors.ts';
import { rebuildDerived } from '../src/ledger/index.ts';
import { openDatabase, readAuthorities } from '../src/local/open-database.ts';

async function main(): Promise<void> {
  const { adminUrl, close } = await openDatabase(process.env);
  try {
    await rebuildDerived({ url: adminUrl, certificateAuthorities: await readAuthorities(process.env) });
    process.stdout.write('derived tables rebuilt from the ledger\n');
  } finally {
    await close();
  }
}

main().catch((error) => {
  process.stderr.write(failureText(error, 'rebuild failed'));
  process.exit(2);
});
