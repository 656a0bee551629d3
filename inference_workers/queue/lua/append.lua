-- prefix, worker or '', then for each job: id, epoch, first seq, count, and count times
-- (event JSON, kind, tokens); kind is s(tarted), d(elta, or vectors: progress) or t(erminal).
-- → for each job {ok, last seq, cancelled, reason, proved}
--
-- An event whose number is already in the log is skipped: sending again is harmless. One whose
-- number would leave a gap is refused with the last number, and the worker sends what is missing.
local worker = ARGV[2]
local t = now_ms()

-- What each team has to be charged for the whole batch: a step makes a token for each of many jobs.
local charges = {}

local function note_charge(model, team, weight, tokens)
  local id = table.concat({model, team, weight}, '\n')
  local noted = charges[id] or {model, team, tonumber(weight), 0}
  noted[4] = noted[4] + tokens
  charges[id] = noted
end

local function append_one(id, epoch, first, count, at)
  local job = key('job', id)
  local f = redis.call('HMGET', job, 'state', 'epoch', 'worker', 'seq', 'cancel', 'model', 'team',
    'weight', 'suspect', 'first_token_at', 'progress', 'tokens')
  if not f[1] then return {0, 0, 0, 'unknown'} end
  local seq = tonumber(f[4])
  if f[2] ~= epoch or (worker ~= '' and f[3] ~= worker) or f[1] == 'queued' then
    return {0, seq, 0, f[1] == 'ended' and 'ended' or 'fenced'}
  end
  if f[1] == 'ended' then
    if first + count - 1 <= seq then return {1, seq, 0, ''} end
    return {0, seq, 0, 'ended'}
  end
  if first > seq + 1 then return {0, seq, tonumber(f[5]), 'gap'} end

  local tokens, deltas, terminal, proved = 0, 0, false, 0
  for i = seq - first + 1, count - 1 do
    local a = at + 3 * i
    seq = seq + 1
    redis.call('XADD', key('log', id), seq .. '-0', 'p', epoch, 't', t, 'e', ARGV[a])
    local kind = ARGV[a + 1]
    if kind == 'd' then
      deltas = deltas + 1
      tokens = tokens + tonumber(ARGV[a + 2])
    elseif kind == 't' then
      terminal = true
      break
    end
  end
  if deltas == 0 then
    redis.call('HSET', job, 'seq', seq)
  else
    redis.call('HSET', job, 'seq', seq, 'progress', tonumber(f[11]) + deltas,
      'tokens', tonumber(f[12]) + tokens, 'last_token_at', t, 'first_token_at', f[10] or t)
    if tokens > 0 then note_charge(f[6], f[7], f[8], tokens) end
    if f[9] == '1' then
      proved = 1
      redis.call('HSET', job, 'suspect', '0')
      if redis.call('HGET', key('worker', f[3]), 'suspect') == id then
        redis.call('HDEL', key('worker', f[3]), 'suspect')
      end
    end
  end
  if terminal then ended(id, f[3], t) end
  return {1, seq, terminal and 0 or tonumber(f[5]), '', proved}
end

local results, at = {}, 3
while at <= #ARGV do
  local count = tonumber(ARGV[at + 3])
  results[#results + 1] = append_one(ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), count, at + 4)
  at = at + 4 + 3 * count
end
for _, noted in pairs(charges) do charge(noted[1], noted[2], noted[4], noted[3]) end
return results
