// The body of a web_hook after login or registration: a tenant-log event for abgate's /runtime/v1/events.
// `ctx` is {flow, request_headers, request_method, request_url, request_cookies, identity?, session?}.

local cookie = '__Host-abgate_device';

local first(headers, name) = std.get(headers, name, [null])[0];

function(ctx)
  // Only a login's flow asks for an assurance level; a registration's does not.
  local is_login = std.objectHas(ctx.flow, 'requested_aal');
  // The second factor is a flow of its own. Kratos sends nothing when a body ends in this error.
  if is_login && ctx.flow.requested_aal == 'aal2' then error 'cancel' else std.prune({
    // Kratos tries again when it saw no answer: this makes the two one.
    log_id: 'kratos_' + ctx.flow.id,
    data: {
      type: if is_login then 's' else 'ss',
      date: if std.objectHas(ctx, 'session') then ctx.session.authenticated_at else ctx.identity.created_at,
      user_id: ctx.identity.id,
      device_id: std.get(ctx.request_cookies, cookie),
      transaction_id: ctx.flow.id,
      organization_id: std.get(ctx.flow, 'organization_id'),
      strategy: std.get(ctx.flow, 'active'),
      ip: first(ctx.request_headers, 'True-Client-Ip'),
      user_agent: first(ctx.request_headers, 'User-Agent'),
    },
  })
