// Evaluates what standard input lists by the published provider for servers, and prints what it says of each.
import { OFREPProvider } from '@openfeature/ofrep-provider';
import { OpenFeature } from '@openfeature/server-sdk';
import { readFileSync } from 'node:fs';

const { url, key, calls } = JSON.parse(readFileSync(0, 'utf8'));
const headers = key === null ? [] : [['Authorization', `Bearer ${key}`]];
await OpenFeature.setProviderAndWait(new OFREPProvider({ baseUrl: url, headers }));
const client = OpenFeature.getClient();
const ask = {
  boolean: (call) => client.getBooleanDetails(call.key, call.default, call.context),
  string: (call) => client.getStringDetails(call.key, call.default, call.context),
  number: (call) => client.getNumberDetails(call.key, call.default, call.context),
  object: (call) => client.getObjectDetails(call.key, call.default, call.context),
};
const answers = [];
for (const call of calls) {
  answers.push(await ask[call.type](call));
}
await OpenFeature.close();
console.log(JSON.stringify(answers));
