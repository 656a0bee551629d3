-- Shared by every script, put in front of it. ARGV[1] is the keys' prefix (see keys.py).
-- Redis' own clock is the only clock.
local P = ARGV[1]

local function key(...)
  return P .. ':' .. table.concat({...}, ':')
end

local function now_ms()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end

local function num(x)
  return string.format('%.17g', x)
end

-- Fairness: the Virtual Token Counter of arXiv 2401.00588, algorithm 2. A team is active while it
-- has queued jobs. One that becomes active is lifted to the least counter among the active, or, when
-- nobody is, to the counter of the team that left last: being away earns no credit.

local function activate(model, team)
  local active, idle = key('active', model), key('idle', model)
  if redis.call('ZSCORE', active, team) then return end
  local least = redis.call('ZRANGE', active, 0, 0, 'WITHSCORES')[2]
  local floor = tonumber(least or redis.call('HGET', key('fair', model), 'floor') or '0')
  local own = tonumber(redis.call('ZSCORE', idle, team) or '0')
  redis.call('ZADD', active, num(math.max(own, floor)), team)
  redis.call('ZREM', idle, team)
  if redis.call('ZCARD', idle) > 1000 then
    redis.call('ZREMRANGEBYSCORE', idle, '-inf', num(floor))
  end
end

local function deactivate(model, team)
  if redis.call('EXISTS', key('queue', model, team)) == 1 then return end
  local active = key('active', model)
  local counter = redis.call('ZSCORE', active, team)
  if not counter then return end
  redis.call('ZREM', active, team)
  redis.call('ZADD', key('idle', model), counter, team)
  if redis.call('EXISTS', active) == 0 then
    redis.call('HSET', key('fair', model), 'floor', counter, 'last', team)
  end
end

local function charge(model, team, tokens, weight)
  local amount = num(tokens / weight)
  if redis.call('ZSCORE', key('active', model), team) then
    redis.call('ZINCRBY', key('active', model), amount, team)
    return
  end
  local counter = redis.call('ZINCRBY', key('idle', model), amount, team)
  local fair = key('fair', model)
  if redis.call('EXISTS', key('active', model)) == 0
      and redis.call('HGET', fair, 'last') == team then
    redis.call('HSET', fair, 'floor', counter)
  end
end

-- The queue.

local function push(id, model, team, order, deadline, t)
  redis.call('ZADD', key('queue', model, team), order, id)
  redis.call('ZADD', key('waiting', model), t, id)
  if deadline ~= '' then redis.call('ZADD', key('deadlines'), deadline, id) end
  activate(model, team)
  -- Idle workers wait on one list, full ones on the other, so that none takes another's call. Few
  -- elements will do: a woken worker claims all that it can.
  for _, wake in ipairs({key('wake', model), key('wake', model, 'full')}) do
    if redis.call('LLEN', wake) < 4 then redis.call('LPUSH', wake, '1') end
  end
end

local function pull(id, model, team)
  redis.call('ZREM', key('queue', model, team), id)
  redis.call('ZREM', key('waiting', model), id)
  redis.call('ZREM', key('deadlines'), id)
end

-- A worker's hold on a job.

local function unhold(id, worker)
  if not worker or worker == '' then return end
  redis.call('SREM', key('worker', worker, 'jobs'), id)
  redis.call('SREM', key('worker', worker, 'cancels'), id)
  if redis.call('HGET', key('worker', worker), 'suspect') == id then
    redis.call('HDEL', key('worker', worker), 'suspect')
  end
end

-- Ends.

local function ended(id, worker, t)
  unhold(id, worker)
  redis.call('HSET', key('job', id), 'state', 'ended', 'ended_at', t)
  redis.call('ZADD', key('ended'), t, id)
  if redis.call('EXISTS', key('ended', 'notice')) == 0 then
    redis.call('LPUSH', key('ended', 'notice'), '1')
  end
end

local function usage_json(id)
  local f = redis.call('HMGET', key('job', id), 'charged', 'prompt', 'tokens')
  local prompt = 0
  if f[1] == '1' then prompt = tonumber(f[2]) end
  return string.format('{"prompt_tokens":%d,"completion_tokens":%d}', prompt, tonumber(f[3]))
end

-- Append the terminal entry that no worker writes. The job must not be queued any more.
local function conclude(id, head, t)
  local job = key('job', id)
  local f = redis.call('HMGET', job, 'worker', 'epoch')
  local seq = redis.call('HINCRBY', job, 'seq', 1)
  redis.call('XADD', key('log', id), seq .. '-0', 'p', f[2], 't', t, 'e',
    '{' .. head .. ',"usage":' .. usage_json(id) .. '}')
  ended(id, f[1], t)
end

local CANCELLED = '"type":"cancelled"'
local DEADLINE = '"type":"failed","code":"deadline_exceeded",'
  .. '"message":"The deadline passed before the answer was complete. '
  .. 'Allow more time, or ask for fewer tokens."'
local LOST = '"type":"failed","code":"worker_lost",'
  .. '"message":"Two workers died while they worked on this request, '
  .. 'so it was stopped. Try again, or change the request."'

-- Take a running job from its worker and queue it again in its old place, which is in front of
-- everything that its team has queued since. A job that crashed is a suspect: it proves itself by a
-- new delta. One that crashes twice without progress in between ends here.
local function give_back(id, crashed, t)
  local job = key('job', id)
  local f = redis.call('HMGET', job, 'state', 'worker', 'model', 'team', 'order', 'deadline',
    'cancel', 'crashes', 'progress', 'crash_progress')
  if f[1] ~= 'running' then return false end
  if f[7] == '1' then
    conclude(id, CANCELLED, t)
    return true
  end
  if crashed then
    redis.call('HINCRBY', job, 'crashes', 1)
    if f[10] == f[9] then
      conclude(id, LOST, t)
      return true
    end
    redis.call('HSET', job, 'crash_progress', f[9], 'suspect', '1')
  end
  unhold(id, f[2])
  redis.call('HINCRBY', job, 'epoch', 1)
  redis.call('HSET', job, 'state', 'queued', 'worker', '')
  push(id, f[3], f[4], f[5], f[6], t)
  return true
end

local function give_back_all(worker, crashed, t)
  local ids = redis.call('SMEMBERS', key('worker', worker, 'jobs'))
  local touched = {}
  for _, id in ipairs(ids) do
    if give_back(id, crashed, t) then
      touched[#touched + 1] = id
    else
      unhold(id, worker)
    end
  end
  return touched
end

local function drop_worker(worker)
  redis.call('ZREM', key('workers'), worker)
  redis.call('DEL', key('worker', worker), key('worker', worker, 'jobs'),
    key('worker', worker, 'cancels'))
end
