// Stands where Terraform would on the PATH: notes how it was called, and has the stand-in of AWS do what an apply would.
import { appendFileSync, readFileSync } from 'node:fs';

const { TERRAFORM_CALLS, TERRAFORM_FAILS, TERRAFORM_OUTPUTS, AWS_ENDPOINT_URL } = process.env;
const args = process.argv.slice(2);
appendFileSync(String(TERRAFORM_CALLS), `${JSON.stringify(args)}\n`);
const command = args.find((arg) => !arg.startsWith('-'));
if (command === TERRAFORM_FAILS) {
  process.stderr.write('Error: it would not\n');
  process.exit(1);
}
if (command === 'apply') {
  const file = args.find((arg) => arg.startsWith('-var-file='))?.slice('-var-file='.length);
  const variables = readFileSync(String(file));
  const answer = await fetch(`${AWS_ENDPOINT_URL}/terraform`, { method: 'POST', body: variables });
  process.stdout.write(`Apply complete! ${answer.status}\n`);
}
if (command === 'output') process.stdout.write(String(TERRAFORM_OUTPUTS));
