/**
 * Runs an Action as Auth0 does: a CommonJS module whose onExecutePostLogin gets a read-only event and an api object.
 *
 * The api has the post-login functions that Auth0 documents and no other; each call is checked as Auth0 checks it and
 * written down. Arguments: the Action's file, the event. Prints {calls, logged, took_ms}.
 */
const [path, event] = process.argv.slice(2);
const calls = [];
const logged = [];

console.log = (...line) => logged.push(line.join(" "));

const record = (name, check = () => true) => (...args) => {
  if (!check(...args)) throw new TypeError(`${name}(${JSON.stringify(args)})`);
  calls.push([name, ...args]);
};
const isScalar = (value) => value === null || ["string", "number", "boolean"].includes(typeof value);
const isClaim = (name, value) => typeof name === "string" && JSON.stringify(value) !== undefined;

const api = {
  access: { deny: record("access.deny") },
  accessToken: {
    setCustomClaim: record("accessToken.setCustomClaim", isClaim),
    addScope: record("accessToken.addScope"),
    removeScope: record("accessToken.removeScope"),
  },
  idToken: { setCustomClaim: record("idToken.setCustomClaim", isClaim) },
  transaction: {
    setMetadata: record("transaction.setMetadata", (name, value) => typeof name === "string" && isScalar(value)),
  },
};

const frozen = (value) => {
  if (value && typeof value === "object") Object.values(Object.freeze(value)).forEach(frozen);
  return value;
};

(async () => {
  const { onExecutePostLogin } = require(path);
  // The first fetch of a process loads Node's client, which Auth0's long-lived runtime has done already.
  await fetch("data:,").catch(() => null);
  const started = performance.now();
  await onExecutePostLogin(frozen(JSON.parse(event)), frozen(api));
  process.stdout.write(JSON.stringify({ calls, logged, took_ms: performance.now() - started }));
  // As Auth0 does: what an Action left running is not waited for.
  process.exit(0);
})();
