/** What failed, of a report of vitest: `files` prints the files, for a second run; `told` each test with its error. */
import { readFileSync } from 'node:fs';
import { relative } from 'node:path';

const [what, path] = process.argv.slice(2);
const failed = JSON.parse(readFileSync(path, 'utf8')).testResults.filter(({ status }) => status === 'failed');
if (failed.length === 0) process.exit(1); // an error outside of every test: nothing to run again

for (const { name, message, assertionResults } of failed) {
  const file = relative(process.cwd(), name);
  if (what === 'files') {
    console.log(file);
    continue;
  }
  if (message) console.log(`${file}: ${message}`);
  for (const { fullName, status, failureMessages } of assertionResults) {
    if (status === 'failed') console.log(`${file} > ${fullName}\n${failureMessages.join('\n').slice(0, 3000)}\n`);
  }
}
