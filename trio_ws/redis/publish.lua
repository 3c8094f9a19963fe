-- Publish a batch: give each message its place in its rooms, keep it, send it to all processes.
--
-- KEYS  the sender's counter; then for each message and each of its rooms: state, history
-- ARGV  run, new epoch, number of the batch, life of the counter (ms),
--       history: messages, bytes, age (ms; 1e300: no limit), life of the state (ms; 0: for ever);
--       then for each message: number of rooms, their channels, body
--
-- Returns for each message "" or what was wrong; nil if this batch has been here before.
-- What is sent and kept begins with "M<microseconds> <epoch>:<offset> ...\n"; the body follows.

local run, epoch, number, counter_life = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local most, most_bytes, age, life = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8]

if tonumber(redis.call('GET', KEYS[1]) or '0') >= number then
  return nil
end
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

local function find(state)
  local known = redis.call('HMGET', state, 'run', 'epoch', 'offset', 'time', 'size')
  local last = tonumber(known[4] or '0')
  if known[1] == run then
    return known[2], tonumber(known[3]), last, tonumber(known[5])
  end
  -- Redis was started anew: it may have forgotten what others have seen. See _scripts.py.
  return epoch, 0, last, tonumber(known[5] or '0')
end

local function keep(history, record, size, time)
  local length = redis.call('RPUSH', history, record)
  size = (length > 1 and size or 0) + #record  -- what was there may have expired
  while length > 0 do
    local first = redis.call('LINDEX', history, 0)
    local born = tonumber(string.match(first, '^M(%d+)'))
    if length <= most and size <= most_bytes and time - born < age * 1000 then
      break
    end
    redis.call('LPOP', history)
    length = length - 1
    size = size - #first
  end
  if age < 1e300 then
    redis.call('PEXPIRE', history, string.format('%.0f', age))
  end
  return size
end

local function publish(key, arg, rooms)
  local body = ARGV[arg + rooms]
  local time, places, found = now, {}, {}
  for i = 1, rooms do
    local its_epoch, offset, last, size = find(KEYS[key + 2 * i - 2])
    time = math.max(time, last + 1)
    found[i] = {its_epoch, offset + 1, size}
    places[i] = its_epoch .. ':' .. string.format('%.0f', offset + 1)
  end
  local stamp = string.format('%.0f', time)
  local record = 'M' .. stamp .. ' ' .. table.concat(places, ' ') .. '\n' .. body
  for i = 1, rooms do
    local state, history = KEYS[key + 2 * i - 2], KEYS[key + 2 * i - 1]
    local its_epoch, offset, size = unpack(found[i])
    if most > 0 then
      size = keep(history, record, size, time)
    end
    redis.call('HSET', state, 'run', run, 'epoch', its_epoch, 'time', stamp,
      'offset', string.format('%.0f', offset), 'size', string.format('%.0f', size))
    if life ~= '0' then
      redis.call('PEXPIRE', state, life)
    end
  end
  for i = 1, rooms do
    redis.call('PUBLISH', ARGV[arg + i - 1], record)
  end
end

local key, arg, results = 2, 9, {}
while arg <= #ARGV do
  local rooms = tonumber(ARGV[arg])
  local ok, problem = pcall(publish, key, arg + 1, rooms)
  results[#results + 1] = ok and '' or (type(problem) == 'table' and problem.err or problem)
  key = key + 2 * rooms
  arg = arg + rooms + 2
end
redis.pcall('SET', KEYS[1], ARGV[3], 'PX', counter_life)  -- out of memory: nothing was published
return results
