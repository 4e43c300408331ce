/**
 * Auth0 Action for the post-login trigger: asks abgate which variation this login gets and puts it into the tokens.
 *
 * Secrets: ABGATE_URL (https://abgate.example.com) and ABGATE_TOKEN (may `evaluate:experimentation`).
 * Set up in README.md, beside this file.
 */

// A login waits for us no longer than this, whatever happens; then it goes on without an experiment.
const TIMEOUT_MS = 200;

// Auth0 ignores claims that clash with reserved names, so custom claims carry a namespace: make this a URL of yours.
const CLAIM = "https://abgate.example/experiment";

// Survives a redirect or an MFA challenge, after which Auth0 goes on with the Actions behind it.
const METADATA = "abgate_assignment_token";

exports.onExecutePostLogin = async (event, api) => {
  try {
    const answer = await resolve(event);
    if (!answer?.experiment) return;
    // {experiment_id, variation_id, config, is_control}: what the application does differently is in `config`.
    api.idToken.setCustomClaim(CLAIM, answer.experiment);
    api.accessToken.setCustomClaim(CLAIM, answer.experiment);
    if (answer.assignment_token) {
      // Early Access in Auth0: a tenant without it has no such function.
      api.transaction?.setMetadata?.(METADATA, answer.assignment_token);
    }
  } catch (error) {
    // Fail open, whatever was answered. The message alone: the error may hold the request with its token.
    console.log(`abgate: no experiment for this login: ${error.message}`);
  }
};

async function resolve(event) {
  const answer = await fetch(new URL("/runtime/v1/resolve", event.secrets.ABGATE_URL), {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${event.secrets.ABGATE_TOKEN}` },
    body: JSON.stringify(question(event)),
    // Covers the connection, the headers and the body.
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  if (!answer.ok) throw new Error(`abgate answered ${answer.status}`);
  return await answer.json();
}

function question(event) {
  const { request, transaction, session, organization } = event;
  const query = request.query ?? {};
  return {
    flow: "authentication",
    subjects: {
      user: event.user.user_id,
      // Auth0 has no identifier of the device; an application that has one sends it along to /authorize.
      device: query["ext-device_id"],
      organization: organization?.id,
    },
    transaction_id: transaction?.id ?? session?.id,
    request: {
      client_id: event.client.client_id,
      connection: event.connection.name,
      organization_id: organization?.id,
      domain: request.hostname,
      user_agent: request.user_agent,
      ip: request.ip,
      country: request.geoip?.countryCode,
      region: request.geoip?.subdivisionCode,
    },
    // Of an earlier Action of this transaction, or of the abgate gateway in front of Auth0.
    assignment_token: transaction?.metadata?.[METADATA] ?? query["ext-experiment_token"],
    // A refreshed token keeps its claim, but nobody logs in: that is no exposure.
    record: transaction?.protocol !== "oauth2-refresh-token",
  };
}
