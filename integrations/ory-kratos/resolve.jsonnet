// The body of a web_hook before login or registration: asks abgate's /runtime/v1/resolve, which records the exposure.
// `ctx` is {flow, request_headers, request_method, request_url, request_cookies, identity?, session?}.

// The cookie of abgate's gateway: Kratos sees it when both are served under the same host name. Or a cookie of yours.
local cookie = '__Host-abgate_device';

local first(headers, name) = std.get(headers, name, [null])[0];

function(ctx) std.prune({
  flow: 'authentication',
  subjects: { device: std.get(ctx.request_cookies, cookie), organization: std.get(ctx.flow, 'organization_id') },
  // event.jsonnet sends the same one: by it the event finds its exposure.
  transaction_id: ctx.flow.id,
  request: {
    user_agent: first(ctx.request_headers, 'User-Agent'),
    ip: first(ctx.request_headers, 'True-Client-Ip'),
    organization_id: std.get(ctx.flow, 'organization_id'),
  },
})
