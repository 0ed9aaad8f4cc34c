-- Sends events with wrk. Its arguments:
--   1  a text in every event; if no other run has it, the events of a run differ from those of all others
--   2  the size of a body in bytes
--   3  "distinct" events, or the "same" event again
--   4  the mean pause after an answer in milliseconds: 0 is as fast as the server answers
-- At the end, it prints one line of JSON.

local threads = 0

function setup(thread)
  threads = threads + 1
  thread:set("thread_number", threads)
end

function init(args)
  mean_pause = tonumber(args[4])
  is_same = args[3] == "same"
  local before = '{"vendor":"stripe","event_type":"payment.succeeded","created_at":"2026-05-06T12:34:56Z",'
    .. '"amount":4200,"currency":"USD","details":{"invoice":"inv_123"},"id":"' .. args[1]
  local after = '","note":"'
  local fixed = #before + 12 + #after + 2
  after = after .. string.rep("x", math.max(0, tonumber(args[2]) - fixed)) .. '"}'
  local length = #before + 12 + #after
  head = "POST /webhook HTTP/1.1\r\nHost: " .. wrk.headers["Host"] .. "\r\nContent-Type: application/json\r\n"
    .. "Content-Length: " .. length .. "\r\n\r\n" .. before
  tail = after
  number = 0
  math.randomseed(thread_number)
  -- wrk sets a timer for every request if there is a delay, even for one of 0.
  if mean_pause == 0 then
    delay = nil
  end
end

function request()
  if is_same then
    return head .. string.rep("0", 12) .. tail
  end
  number = number + 1
  return head .. string.format("%02d%010d", thread_number, number) .. tail
end

-- Pauses are exponentially distributed, so that the connections do not fall into step. A pause is a whole
-- number of milliseconds, and its fraction is the chance of one more.
function delay()
  return math.floor(-math.log(1 - math.random()) * mean_pause + math.random())
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"seconds":%.6f,"p50":%.6f,"p99":%.6f,"refused":%d,"broken":%d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e6, latency:percentile(99) / 1e6,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
