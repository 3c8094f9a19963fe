-- Tell how rooms stand, and what was published in them behind a place.
--
-- KEYS  for each room: state, history
-- ARGV  run, new epoch, age (ms), life of the state (ms; 0: for ever);
--       then for each room: epoch and offset of the place ("" and 0: give everything), channel,
--       and "break" if messages got lost for others, which only this process knows; or ""
--
-- Returns the time, and for each room: epoch, offset, time, the place where the epoch before
-- has ended if "break" has ended it (or ""), and the records.

local run, fresh, age, life = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

local function forget_old(history)
  local gone = 0
  while true do
    local first = redis.call('LINDEX', history, 0)
    if not first or now - tonumber(string.match(first, '^M(%d+)')) < age * 1000 then
      return gone
    end
    redis.call('LPOP', history)
    gone = gone + #first
  end
end

local function fetch(state, history, epoch, offset, channel, breaks)
  local known = redis.call('HMGET', state, 'run', 'epoch', 'offset', 'time', 'size')
  local its_epoch, tip, time = known[2], tonumber(known[3] or '0'), tonumber(known[4] or '0')
  local size = tonumber(known[5] or '0') - forget_old(history)
  local ended = ''
  if known[1] ~= run then
    -- Redis was started anew: it may have forgotten what others have seen. See _scripts.py.
    its_epoch, tip = fresh, 0
  elseif breaks then
    ended = its_epoch .. ':' .. string.format('%.0f', tip)
    its_epoch, tip = fresh, 0
  end
  if its_epoch == fresh then
    time = math.max(time + 1, now)
    local stamp = string.format('%.0f', time)
    redis.call('HSET', state, 'run', run, 'epoch', its_epoch, 'offset', '0', 'time', stamp,
      'size', string.format('%.0f', math.max(size, 0)))
    if breaks then
      redis.call('PUBLISH', channel, 'E' .. stamp .. ' ' .. its_epoch .. ':0\n')
    end
  elseif size ~= tonumber(known[5] or '0') then
    redis.call('HSET', state, 'size', string.format('%.0f', math.max(size, 0)))
  end
  if life ~= '0' then
    redis.call('PEXPIRE', state, life)
  end
  local first = 0
  if epoch == its_epoch then
    first = math.max(redis.call('LLEN', history) - (tip - offset), 0)
  end
  local records = redis.call('LRANGE', history, first, -1)
  return {its_epoch, tip, string.format('%.0f', time), ended, records}
end

local results = {string.format('%.0f', now)}
for i = 1, #KEYS / 2 do
  local arg = 4 * i + 1
  results[i + 1] = fetch(KEYS[2 * i - 1], KEYS[2 * i], ARGV[arg], tonumber(ARGV[arg + 1]),
    ARGV[arg + 2], ARGV[arg + 3] == 'break')
end
return results
