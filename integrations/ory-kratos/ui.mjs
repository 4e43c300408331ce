/**
 * For the self-service UI, which draws Kratos' pages: asks abgate what this visitor's page looks like.
 *
 * `flow` is the login or registration flow that the UI got from Kratos, `device` the visitor's device cookie, `request`
 * what segments look at ({user_agent, ip, …}). Returns the ExperimentContext, or null: then draw the page as ever.
 */
const TIMEOUT_MS = 200;

export async function experimentFor(flow, device, request, { url, key }) {
  try {
    const answer = await fetch(new URL("/runtime/v1/resolve", url), {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${key}` },
      // Asked again for a page that is drawn again: the same device gets the same variation.
      body: JSON.stringify({ flow: "authentication", subjects: { device }, transaction_id: flow.id, request }),
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    if (!answer.ok) throw new Error(`abgate answered ${answer.status}`);
    return (await answer.json()).experiment;
  } catch (error) {
    console.warn(`abgate: no experiment for this page: ${error.message}`);
    return null;
  }
}
