-- Distinct subjects, in turn, by requests that are made beforehand; a last line of JSON for the benchmark.
local requests, count, at = {}, 4096, 0

function init(args)
  local path, key, template = args[1], args[2], args[3]
  local headers = { ["Content-Type"] = "application/json", ["Authorization"] = "Bearer " .. key }
  for number = 1, count do
    local body = template:gsub("SUBJECT", string.format("device-%08d", number * 7919))
    requests[number] = wrk.format("POST", path, headers, body)
  end
end

function request()
  at = at % count + 1
  return requests[at]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format('{"requests":%d,"us":%d,"p50_us":%d,"p99_us":%d,"errors":%d}\n', summary.requests,
    summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
