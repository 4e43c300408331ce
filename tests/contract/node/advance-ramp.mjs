// Calls experiments.advanceRamp of the published client as the JSON on standard input says,
// {domain, clientId, clientSecret, calls: [[id, target level], …]}, and prints what came of each call.
import { readFileSync } from "node:fs";

import { ManagementClient } from "auth0";

const { calls, ...credentials } = JSON.parse(readFileSync(0, "utf8"));
let requests = 0;
const client = new ManagementClient({
    ...credentials,
    fetch: (...request) => {
        requests += 1;
        return fetch(...request);
    },
});

const outcomes = [];
for (const [id, target_level] of calls) {
    requests = 0;
    const outcome = await client.experimentation.experiments
        .advanceRamp(id, { target_level })
        .withRawResponse()
        .then(
            ({ data, rawResponse }) => ({ data, status: rawResponse.status }),
            ({ name, statusCode, body }) => ({ error: name, status: statusCode, body }),
        );
    outcomes.push({ ...outcome, requests });
}
console.log(JSON.stringify(outcomes));
